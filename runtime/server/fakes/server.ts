/**
 * A server over fakes, and ways to talk to it.
 *
 * @module
 */
import { createLogger, type Logger } from "../logger.ts";
import {
  type HolderServerOptions,
  type RunningServer,
  type ServerOptions,
  startHolderServer,
  startServer,
} from "../server.ts";
import { FakeEngine } from "./engine.ts";
import { FakeText } from "./text.ts";

/** A log that is kept. */
export class KeptLog {
  readonly #decoder = new TextDecoder();
  /** Everything that was logged. */
  text = "";
  /** Writes to it. */
  readonly logger: Logger = createLogger({
    level: "debug",
    format: "json",
    write: (line) => {
      this.text += this.#decoder.decode(line);
      return Promise.resolve();
    },
  });
}

/** A running server with its log. */
export interface Harness extends AsyncDisposable {
  /** The server. */
  readonly server: RunningServer;
  /** Its log. */
  readonly log: KeptLog;
  /** Sends a request to a path. */
  fetch(path: string, init?: RequestInit): Promise<Response>;
  /** Posts JSON (a string is sent as it is) to a path. */
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Response>;
  /** Sends bytes over a fresh connection and returns everything that comes back until it closes. */
  raw(...parts: readonly (string | Uint8Array)[]): Promise<string>;
}

/** Starts a server on a free port with fakes for whatever `options` lacks. */
export async function serve(options: Partial<ServerOptions> = {}): Promise<Harness> {
  const log = new KeptLog();
  const server = await startServer({
    engine: new FakeEngine(),
    text: new FakeText(),
    port: 0,
    logger: log.logger,
    ...options,
  });
  return harness(server, log);
}

/** Starts the server of a holder on a free port. */
export async function serveHolder(options: Pick<HolderServerOptions, "holder" | "apiKeys">): Promise<Harness> {
  const log = new KeptLog();
  return harness(await startHolderServer({ port: 0, logger: log.logger, ...options }), log);
}

function harness(server: RunningServer, log: KeptLog): Harness {
  const fetchPath = (path: string, init?: RequestInit) => fetch(`${server.url}${path}`, init);
  return {
    server,
    log,
    fetch: fetchPath,
    post: (path, body, headers = {}) =>
      fetchPath(path, {
        method: "POST",
        headers: { "content-type": "application/json", ...headers },
        body: typeof body === "string" ? body : JSON.stringify(body),
      }),
    raw: (...parts) => talk(server.port, parts),
    [Symbol.asyncDispose]: () => server.close(),
  };
}

async function talk(port: number, parts: readonly (string | Uint8Array)[]): Promise<string> {
  using connection = await Deno.connect({ hostname: "127.0.0.1", port });
  const encoder = new TextEncoder();
  let answer = "";
  const reading = (async () => {
    const decoder = new TextDecoder();
    const buffer = new Uint8Array(65536);
    for (let got = await connection.read(buffer); got !== null; got = await connection.read(buffer)) {
      answer += decoder.decode(buffer.subarray(0, got), { stream: true });
    }
  })().catch(() => {});
  try {
    for (const part of parts) {
      let rest = typeof part === "string" ? encoder.encode(part) : part;
      while (rest.length > 0) rest = rest.subarray(await connection.write(rest));
    }
  } catch {
    // The server may close before it has read everything; what it said counts.
  }
  await reading;
  return answer;
}

/** Data fields of an event stream, parsed; comments and `[DONE]` as strings. */
export function events(stream: string): unknown[] {
  return stream.split("\n\n").filter((block) => block !== "").map((block) => {
    const data = block.startsWith("data: ") ? block.slice("data: ".length) : block;
    return data.startsWith("{") ? JSON.parse(data) : data;
  });
}

/** Waits until `condition` holds, at most a few seconds. */
export async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 10));
  if (!condition()) throw new Error("Cannot go on: the condition did not come true in time");
}
