/**
 * Renders templates on a thread of the template process, so that the process's main thread can watch the time.
 *
 * @module
 */
import { Template } from "@huggingface/jinja";
// Types only: the process may read no other file than this one.
import type { TemplateReply, TemplateRequest } from "./template_protocol.ts";

/** Renders with a compiled template that is kept for the next request. */
export class TemplateCompiler {
  #source: string | undefined;
  #template: Template | undefined;

  /** The rendered text, or why there is none. */
  render({ template, variables }: TemplateRequest): TemplateReply {
    try {
      if (this.#template === undefined || this.#source !== template) {
        this.#template = new Template(template);
        this.#source = template;
      }
      return { kind: "text", text: this.#template.render({ ...variables }) };
    } catch (error) {
      return { kind: "error", message: error instanceof Error ? error.message : String(error) };
    }
  }
}

function serve(port: MessagePort): void {
  const compiler = new TemplateCompiler();
  port.onmessage = ({ data }: MessageEvent<TemplateRequest>) => port.postMessage(compiler.render(data));
  // The first rendering pays for loading the interpreter, which is no fault of the template.
  compiler.render({ template: "{% for m in messages %}{{ m.role | trim }}{% endfor %}", variables: { messages: [] } });
  port.postMessage({ kind: "ready" } satisfies TemplateReply);
}

if (import.meta.main) {
  addEventListener("message", (event) => {
    if (event instanceof MessageEvent && event.data instanceof MessagePort) serve(event.data);
  });
}
