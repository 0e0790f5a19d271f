/**
 * A server in a child process.
 *
 * @module
 */

/** How to start a server. */
export interface ServerCommand {
  /** Program. */
  readonly program: string;
  /** Its arguments for a port. */
  readonly args: (port: number) => readonly string[];
  /** Path that answers 200 once the server is ready. */
  readonly readyPath: string;
}

const POLL_MS = 5;
const START_MS = 60_000;
const STOP_MS = 10_000;

/** A started server. Dispose ends it. */
export class ServerProcess implements AsyncDisposable {
  /** Where it listens, without a slash at the end. */
  readonly url: string;
  /** From the start of the process to its first 200 on the ready path, ms. */
  readonly startMs: number;
  readonly #child: Deno.ChildProcess;

  /** Takes over what {@linkcode ServerProcess.start} started. */
  constructor(parts: { url: string; startMs: number; child: Deno.ChildProcess }) {
    this.url = parts.url;
    this.startMs = parts.startMs;
    this.#child = parts.child;
  }

  /**
   * Starts a server on a free port of the loopback interface and waits until it is ready.
   *
   * @throws {Error} when it ends or is not ready within a minute.
   */
  static async start({ program, args, readyPath }: ServerCommand): Promise<ServerProcess> {
    const port = freePort();
    const url = `http://127.0.0.1:${port}`;
    const start = performance.now();
    const child = new Deno.Command(program, { args: [...args(port)], stdin: "null", stdout: "null", stderr: "null" })
      .spawn();
    let ended: Deno.CommandStatus | undefined;
    void child.status.then((status) => ended = status);
    while (!await isReady(url + readyPath)) {
      if (ended !== undefined) throw new Error(`Cannot start ${program}: it ended with code ${ended.code}`);
      if (performance.now() - start > START_MS) {
        await stop(child);
        throw new Error(`Cannot start ${program}: it is not ready after ${START_MS} ms`);
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    return new ServerProcess({ url, startMs: performance.now() - start, child });
  }

  /** Most memory the process has had resident, bytes (Linux). */
  peakBytes(): number {
    return peakBytes(this.#child.pid);
  }

  /** Ends the process. */
  async [Symbol.asyncDispose](): Promise<void> {
    await stop(this.#child);
  }
}

/** Most memory that process `pid` has had resident, bytes. @throws {Error} where /proc does not tell. */
export function peakBytes(pid: number): number {
  const match = /^VmHWM:\s+(\d+) kB$/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`));
  if (match === null) throw new Error(`Cannot read the memory of process ${pid}: /proc has no VmHWM`);
  return Number(match[1]) * 1024;
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

async function isReady(url: string): Promise<boolean> {
  try {
    const response = await fetch(url);
    await response.body?.cancel();
    return response.status === 200;
  } catch {
    return false;
  }
}

async function stop(child: Deno.ChildProcess): Promise<void> {
  try {
    child.kill("SIGTERM");
  } catch {
    // It has ended already.
  }
  const timer = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
  await child.status;
  clearTimeout(timer);
}
