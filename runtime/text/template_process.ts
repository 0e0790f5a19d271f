/**
 * One process that renders templates.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { lines } from "./line_stream.ts";
// Puts the modules of the template process into the module cache: it may not download anything.
import "./template_child.ts";
import { TEMPLATE_HEAP_MIB, templateLimits, type TemplateReply, type TemplateRequest } from "./template_protocol.ts";

/** Time that the process may take to start, milliseconds. */
const START_MS = 10_000;
/** Longest line that is accepted from the process, UTF-16 units. */
const MAX_REPLY = 1 << 28;
/** What the process may know of this one's environment: where the module cache and the time zone are. */
const INHERITED = ["DENO_DIR", "HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "USERPROFILE", "SystemRoot", "TZ"];

/** The process stopped answering. */
export class ProcessEndedError extends Error {
  /** Error name. */
  override readonly name = "ProcessEndedError";
}

/**
 * A running template process. It may read one file, its own second module, and nothing else; its heap is capped; and it
 * does not keep this process alive.
 */
export class TemplateProcess implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #replies: AsyncGenerator<string, void, void>;
  #disposed = false;

  /** Takes over a process that runs the template module; {@linkcode TemplateProcess.start} starts one. */
  constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.#input = child.stdin.getWriter();
    this.#replies = lines(child.stdout, { maxLength: MAX_REPLY });
    child.unref();
  }

  /**
   * Starts one and waits until it is ready.
   *
   * @throws {Deno.errors.NotCapable} naming the permission that is missing.
   * @throws {Error} when it does not start.
   */
  static async start(): Promise<TemplateProcess> {
    const process = new TemplateProcess(spawn());
    try {
      await process.#receive(START_MS);
      return process;
    } catch (error) {
      process.#kill();
      const problem = await new Response(process.#child.stderr).text();
      await process[Symbol.asyncDispose]();
      throw new Error(`Cannot start template process: ${problem.trim() || String(error)}`, { cause: error });
    }
  }

  /**
   * Sends a request and waits for the answer; only one may be under way.
   *
   * @param options.wallMs Time the answer may take, milliseconds. Default: by the length of the request.
   * @throws {ProcessEndedError} when the process ended, or was ended because the time was over.
   */
  async exchange(request: TemplateRequest, options: { readonly wallMs?: number } = {}): Promise<TemplateReply> {
    const line = JSON.stringify(request);
    const [, reply] = await Promise.all([
      // A process that ends while it is written to shows in the reply.
      this.#input.write(new TextEncoder().encode(`${line}\n`)).catch(() => {}),
      this.#receive(options.wallMs ?? templateLimits(line.length).wallMs),
    ]);
    return reply;
  }

  /** Ends the process. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true;
    this.#kill();
    this.#child.ref();
    await this.#child.status;
    await this.#input.close().catch(() => {});
    await this.#replies.return();
    if (!this.#child.stderr.locked) await this.#child.stderr.cancel();
  }

  async #receive(timeoutMs: number): Promise<TemplateReply> {
    let late = false;
    this.#child.ref();
    const timer = setTimeout(() => {
      late = true;
      this.#kill();
    }, timeoutMs);
    try {
      const { value } = await this.#replies.next();
      if (value !== undefined) return JSON.parse(value);
    } finally {
      clearTimeout(timer);
      if (!this.#disposed) this.#child.unref();
    }
    throw new ProcessEndedError(
      late
        ? `wanted at most ${Math.round(timeoutMs)} ms, it took more`
        : `its process ended, it may have wanted more than ${TEMPLATE_HEAP_MIB} MiB`,
    );
  }

  #kill(): void {
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      // It has ended already.
      if (!(error instanceof TypeError || error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

function spawn(): Deno.ChildProcess {
  if (Deno.build.standalone) {
    throw new Deno.errors.NotSupported("Cannot start template process: a compiled program has no deno to run it with");
  }
  const deno = Deno.execPath();
  const main = new URL("./template_child.ts", import.meta.url);
  const thread = new URL("./template_thread.ts", import.meta.url);
  const local = main.protocol === "file:";
  const command = new Deno.Command(deno, {
    args: [
      "run",
      "--quiet",
      "--no-prompt",
      "--no-lock",
      "--cached-only",
      "--node-modules-dir=none",
      // A thread's module is read with the permissions of its process.
      ...local
        ? ["--no-remote", `--allow-read=${fileURLToPath(thread).replaceAll(",", ",,")}`]
        // The project around the caller does not matter to a package from a registry.
        : ["--no-config"],
      `--v8-flags=--max-old-space-size=${TEMPLATE_HEAP_MIB}`,
      main.href,
    ],
    // Loader variables such as LD_LIBRARY_PATH would need the right to run everything.
    clearEnv: true,
    env: inheritedEnvironment(),
    // A key that interrupts the server's terminal must not end the child: what drains still renders.
    detached: true,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  });
  try {
    return command.spawn();
  } catch (cause) {
    if (!(cause instanceof Deno.errors.NotCapable)) throw cause;
    throw new Deno.errors.NotCapable(`Cannot start template process: wanted the permission --allow-run=${deno}`, {
      cause,
    });
  }
}

function inheritedEnvironment(): Record<string, string> {
  const environment: Record<string, string> = {};
  for (const variable of INHERITED) {
    if (Deno.permissions.querySync({ name: "env", variable }).state !== "granted") continue;
    const value = Deno.env.get(variable);
    if (value !== undefined) environment[variable] = value;
  }
  return environment;
}
