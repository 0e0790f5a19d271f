/**
 * Renders chat templates in a process that can be killed. Templates come with the model and are programs: one that never
 * ends, or that fills the memory, cannot be stopped inside this process.
 *
 * @module
 */
import { TemplateError } from "./codec.ts";
import { ProcessEndedError, TemplateProcess } from "./template_process.ts";
import type { TemplateReply, TemplateRequest } from "./template_protocol.ts";

/** Renders templates, one at a time, in a process that is started when it is first needed and then kept. */
export class TemplateRenderer implements AsyncDisposable {
  #process: TemplateProcess | undefined;
  #tail: Promise<unknown> = Promise.resolve();
  #disposed = false;

  /**
   * Renders `request`.
   *
   * @throws {TemplateError} when the template is wrong, raises, or goes over its limits.
   * @throws {Deno.errors.NotCapable} when this process may not start another one.
   * @throws {ReferenceError} after disposal.
   */
  render(request: TemplateRequest): Promise<string> {
    const result = this.#tail.then(() => this.#render(request));
    this.#tail = result.catch(() => {});
    return result;
  }

  /** Ends the process; renderings under way fail. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true;
    await this.#stop();
    await this.#tail;
    await this.#stop();
  }

  async #render(request: TemplateRequest): Promise<string> {
    const reply = await this.#exchange(request);
    switch (reply.kind) {
      case "text":
        return reply.text;
      case "error":
        throw failed(reply.message);
      case "overrun":
        await this.#stop();
        throw failed(`wanted at most ${Math.round(reply.cpuMs)} ms of processor time, it took more`);
      case "ready":
        throw failed("its process spoke out of turn");
    }
  }

  async #exchange(request: TemplateRequest): Promise<TemplateReply> {
    this.#refuseWhenDisposed();
    this.#process ??= await TemplateProcess.start();
    try {
      return await this.#process.exchange(request);
    } catch (error) {
      await this.#stop();
      this.#refuseWhenDisposed();
      throw error instanceof ProcessEndedError ? failed(error.message) : error;
    }
  }

  async #stop(): Promise<void> {
    const process = this.#process;
    this.#process = undefined;
    await process?.[Symbol.asyncDispose]();
  }

  #refuseWhenDisposed(): void {
    if (this.#disposed) throw new ReferenceError("Cannot render chat template: the renderer is disposed");
  }
}

function failed(problem: string): TemplateError {
  return new TemplateError(`Cannot render chat template: ${problem}`);
}
