/**
 * One instance of a pool: a child process that announces itself and stops when its standard input ends.
 *
 * @module
 */
import { type Announcement, readAnnouncement } from "../announcement.ts";

/** What a child is to be. */
export interface ChildSpec {
  /** Name in the cluster. */
  readonly name: string;
  /** What it does. */
  readonly role: "full" | "holder";
  /** Its command line, without the program. */
  readonly args: readonly string[];
}

/** Starts a program with piped standard streams. */
export type Spawn = (args: readonly string[]) => Deno.ChildProcess;

/** Longest line that is passed on, UTF-16 units. */
const MAX_LINE = 4096;

/** A started child. */
export class PoolChild {
  /** What it is. */
  readonly spec: ChildSpec;
  /** Its announcement; undefined when it ended before. */
  readonly ready: Promise<Announcement | undefined>;
  /** How it ended, when everything that it said has been passed on. */
  readonly ended: Promise<Deno.CommandStatus>;
  readonly #process: Deno.ChildProcess;
  #announcement: Announcement | undefined;
  #status: Deno.CommandStatus | undefined;
  #stopping = false;

  /** Starts it; `onLine` takes what it writes to standard error. */
  constructor(
    spec: ChildSpec,
    { spawn, onLine }: { readonly spawn: Spawn; readonly onLine: (line: string) => void },
  ) {
    this.spec = spec;
    const process = spawn(spec.args);
    this.#process = process;
    const announced = Promise.withResolvers<Announcement | undefined>();
    this.ready = announced.promise;
    const output = eachLine(process.stdout, (line) => {
      this.#announcement ??= readAnnouncement(line);
      if (this.#announcement !== undefined) announced.resolve(this.#announcement);
    });
    const errors = eachLine(process.stderr, onLine);
    this.ended = (async () => {
      const [status] = await Promise.all([process.status, output, errors]);
      this.#status = status;
      announced.resolve(undefined);
      await this.#closeInput();
      return status;
    })();
  }

  /** Process id. */
  get pid(): number {
    return this.#process.pid;
  }

  /** What it told when it was ready. */
  get announcement(): Announcement | undefined {
    return this.#announcement;
  }

  /** Where it is in its life. */
  get state(): "starting" | "ready" | "stopping" | "ended" {
    if (this.#status !== undefined) return "ended";
    if (this.#stopping) return "stopping";
    return this.#announcement === undefined ? "starting" : "ready";
  }

  /** Whether it was told to stop. */
  get asked(): boolean {
    return this.#stopping;
  }

  /** How it ended, for people; empty before. */
  get ending(): string {
    if (this.#status === undefined) return "";
    const { signal, code } = this.#status;
    return signal === null ? `status ${code}` : signal;
  }

  /** Asks it to stop. Idempotent. */
  stop(): void {
    if (this.#stopping || this.#status !== undefined) return;
    this.#stopping = true;
    void this.#closeInput();
  }

  /** Ends it now. Idempotent. */
  kill(): void {
    if (this.#status !== undefined) return;
    try {
      this.#process.kill("SIGKILL");
    } catch (error) {
      // It has just ended by itself.
      if (!(error instanceof TypeError || error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  async #closeInput(): Promise<void> {
    try {
      await this.#process.stdin.close();
    } catch {
      // Closed before, or the child is gone and its pipe with it.
    }
  }
}

async function eachLine(stream: ReadableStream<Uint8Array<ArrayBuffer>>, use: (line: string) => void): Promise<void> {
  let pending = "";
  for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (pending + chunk).split("\n");
    pending = (lines.pop() ?? "").slice(0, MAX_LINE);
    for (const line of lines) use(line.slice(0, MAX_LINE).trimEnd());
  }
  if (pending !== "") use(pending);
}
