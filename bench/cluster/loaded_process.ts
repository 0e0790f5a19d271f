/**
 * Starts and steers the program of `loaded_instance.ts`.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { lines } from "../../runtime/text/line_stream.ts";
import { eventually } from "../../tests/cluster/deadline.ts";
import type { LoadedInstanceLine, LoadedInstanceOptions } from "./loaded_instance.ts";

const SCRIPT = fileURLToPath(new URL("./loaded_instance.ts", import.meta.url));
const DENO_JSON = fileURLToPath(new URL("../../deno.json", import.meta.url));
const READY_MS = 120_000;
const PROMPT_MS = 300_000;

/** A running one. Disposing of it kills it. */
export class LoadedProcess implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #prefilled: { readonly tokens: number; readonly ms: number }[] = [];
  #ready = false;
  #ended = false;

  /** Starts one. */
  constructor(options: LoadedInstanceOptions) {
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", `--config=${DENO_JSON}`, SCRIPT, JSON.stringify(options)],
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    // A line that the end cut off is nothing to read.
    this.#read().catch(() => {}).finally(() => this.#ended = true);
  }

  /** Waits until it is ready. @throws {Error} when it ends before. */
  async ready(): Promise<this> {
    await this.#until(() => this.#ready, { what: "the loaded instance to be ready", ms: READY_MS });
    return this;
  }

  /** Prompts that were prefilled so far. */
  get prompts(): number {
    return this.#prefilled.length;
  }

  /** Prefills, or rests after the prompt under way. */
  async load(loaded: boolean): Promise<void> {
    await this.#input.write(new TextEncoder().encode(loaded ? "load\n" : "rest\n"));
  }

  /** Waits for `count` more prompts. @returns their tokens over their time, tokens a second. */
  async prefill(count: number): Promise<number> {
    const from = this.#prefilled.length;
    await this.#until(() => this.#prefilled.length >= from + count, { what: `${count} prompts`, ms: PROMPT_MS });
    const done = this.#prefilled.slice(from, from + count);
    return done.reduce((sum, { tokens }) => sum + tokens, 0) / done.reduce((sum, { ms }) => sum + ms, 0) * 1000;
  }

  /** Kills it. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
    await this.#child.status;
    await this.#input.abort().catch(() => {});
  }

  async #until(holds: () => boolean, { what, ms }: { readonly what: string; readonly ms: number }): Promise<void> {
    await eventually(() => {
      if (this.#ended) throw new Error(`Cannot wait for ${what}: the loaded instance has ended`);
      return Promise.resolve(holds() ? true : undefined);
    }, { what, ms, everyMs: 20 });
  }

  async #read(): Promise<void> {
    for await (const text of lines(this.#child.stdout)) {
      if (!text.startsWith("{")) continue;
      const line: LoadedInstanceLine = JSON.parse(text);
      if (line.kind === "ready") this.#ready = true;
      else this.#prefilled.push({ tokens: line.tokens, ms: line.ms });
    }
  }
}
