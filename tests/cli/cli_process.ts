/**
 * Runs `cli.ts` as users do, in a process of its own.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { buildSyntheticGguf } from "../synthetic/synthetic_gguf.ts";

const CLI = fileURLToPath(new URL("../../cli.ts", import.meta.url));
const DENO_JSON = fileURLToPath(new URL("../../deno.json", import.meta.url));

/** How to run a command line. */
export interface CliOptions {
  /** Environment variables besides those that Deno needs; by default WASM computes, and no model is named. */
  readonly env?: Readonly<Record<string, string>>;
  /** Standard input; none by default. */
  readonly input?: string;
  /** Program to run instead of `cli.ts`. */
  readonly program?: string;
  /** Permission flags. @default {["-A"]} */
  readonly permissions?: readonly string[];
}

/** What came of it. */
export interface CliResult {
  /** Exit status. */
  readonly status: number;
  /** Standard output. */
  readonly output: string;
  /** Standard error. */
  readonly errors: string;
}

function command(args: readonly string[], options: CliOptions): Deno.Command {
  const { env = {}, input, program = CLI, permissions = ["-A"] } = options;
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-prompt", "--cached-only", `--config=${DENO_JSON}`, ...permissions, program, ...args],
    env: { NO_COLOR: "1", INFINITE_LLM_DEVICE: "wasm", INFINITE_LLM_MODEL: "", ...env },
    stdin: input === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
  });
}

/** Runs a command line to its end. */
export async function runCli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  const child = command(args, options).spawn();
  if (options.input !== undefined) {
    const writer = child.stdin.getWriter();
    // A program that ends early does not read its input.
    await writer.write(new TextEncoder().encode(options.input)).catch(() => {});
    await writer.close().catch(() => {});
  }
  const { code, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return { status: code, output: decoder.decode(stdout), errors: decoder.decode(stderr) };
}

/** Text of a stream, as far as it came. */
class GrowingText {
  /** Settles at the end of the stream. */
  readonly done: Promise<void>;
  readonly #waiting = new Set<() => void>();
  #text = "";
  #ended = false;

  constructor(stream: ReadableStream<Uint8Array<ArrayBuffer>>) {
    this.done = this.#read(stream);
  }

  get text(): string {
    return this.#text;
  }

  /** Waits for a match. @throws {Error} when the stream ends without one. */
  async match(pattern: RegExp): Promise<RegExpExecArray> {
    while (true) {
      const found = pattern.exec(this.#text);
      if (found !== null) return found;
      if (this.#ended) throw new Error(`Cannot find ${pattern}: got ${this.#text}`);
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
    }
  }

  async #read(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
      this.#text += chunk;
      this.#wake();
    }
    this.#ended = true;
    this.#wake();
  }

  #wake(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }
}

/** A command line that runs until it is asked to stop. */
export class RunningCli implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #output: GrowingText;
  readonly #errors: GrowingText;
  readonly #piped: boolean;

  /** Starts one. */
  constructor(args: readonly string[], options: CliOptions = {}) {
    this.#child = command(args, options).spawn();
    this.#piped = options.input !== undefined;
    this.#output = new GrowingText(this.#child.stdout);
    this.#errors = new GrowingText(this.#child.stderr);
  }

  /** Standard output so far. */
  get output(): string {
    return this.#output.text;
  }

  /** Standard error so far. */
  get errors(): string {
    return this.#errors.text;
  }

  /** Waits for a match in standard output. @throws {Error} when the program ends without one. */
  async match(pattern: RegExp): Promise<RegExpExecArray> {
    return await this.#output.match(pattern);
  }

  /** Waits for a match in standard error. @throws {Error} when the program ends without one. */
  async matchErrors(pattern: RegExp): Promise<RegExpExecArray> {
    return await this.#errors.match(pattern);
  }

  /** Writes to standard input, which must have been piped by giving `input`. */
  async write(text: string): Promise<void> {
    const writer = this.#child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(text));
    writer.releaseLock();
  }

  /** Ends standard input, which must have been piped by giving `input`. */
  async closeInput(): Promise<void> {
    await this.#child.stdin.close();
  }

  /** Sends a signal. */
  signal(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  /** Waits for the end. */
  async end(): Promise<CliResult> {
    const [{ code }] = await Promise.all([this.#child.status, this.#output.done, this.#errors.done]);
    if (this.#piped) await this.#child.stdin.close().catch(() => {});
    return { status: code, output: this.#output.text, errors: this.#errors.text };
  }

  /** Ends it now, unless it has ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      if (!(error instanceof TypeError || error instanceof Deno.errors.NotFound)) throw error;
    }
    await this.end();
  }
}

/** A directory with a tiny model, `model.gguf`, in it. */
export interface ModelDirectory extends AsyncDisposable {
  /** The directory. */
  readonly path: string;
  /** The model. */
  readonly model: string;
}

/** Makes a directory with a tiny model. */
export async function makeModelDirectory(): Promise<ModelDirectory> {
  const path = await Deno.makeTempDir();
  const model = `${path}/model.gguf`;
  await Deno.writeFile(model, buildSyntheticGguf());
  return { path, model, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}
