/**
 * Writing a `Response` to a connection with a bound on what waits for the reader.
 *
 * @module
 */
import type { ServerResponse } from "node:http";

/** Options of {@linkcode writeResponse}. */
export interface WriteOptions {
  /** Bytes written and not yet taken before the body is paused. */
  readonly outputBufferBytes: number;
  /** Milliseconds of one pause before the connection is closed. */
  readonly slowReaderMs: number;
  /** Told when the connection is closed for that. */
  readonly onSlowReader: () => void;
}

const PIECE_BYTES = 64 * 1024;

/**
 * Sends `response`. Event streams are sent as they come, everything else with its length. Resolves when the last byte
 * is handed over or the connection is gone; a body that is not used up is cancelled.
 *
 * @throws whatever the body throws.
 */
export async function writeResponse(
  outgoing: ServerResponse,
  response: Response,
  options: WriteOptions,
): Promise<void> {
  outgoing.statusCode = response.status;
  response.headers.forEach((value, name) => outgoing.setHeader(name, value));
  const { body } = response;
  if (body === null) {
    outgoing.end();
  } else if (response.headers.get("content-type") === "text/event-stream") {
    await writeStream(outgoing, body, options);
  } else {
    const bytes = new Uint8Array(await response.arrayBuffer());
    outgoing.setHeader("content-length", bytes.length);
    for (let at = 0; at < bytes.length && !outgoing.destroyed; at += PIECE_BYTES) {
      await write(outgoing, bytes.subarray(at, at + PIECE_BYTES), options);
    }
    outgoing.end();
  }
  if (!outgoing.writableFinished && !outgoing.destroyed) await taken(outgoing, { event: "finish", ...options });
}

async function writeStream(
  outgoing: ServerResponse,
  body: ReadableStream<Uint8Array>,
  options: WriteOptions,
): Promise<void> {
  const reader = body.getReader();
  const cancel = () => void reader.cancel().catch(() => {});
  outgoing.once("close", cancel);
  try {
    outgoing.flushHeaders();
    while (!outgoing.destroyed) {
      const { done, value } = await reader.read();
      if (done) break;
      joinTurn(outgoing);
      await write(outgoing, value, options);
    }
    outgoing.end();
  } finally {
    outgoing.off("close", cancel);
    cancel();
  }
}

/** Joins everything written in this turn of the event loop, such as the tokens of one step, into one write. */
function joinTurn(outgoing: ServerResponse): void {
  if (outgoing.writableCorked > 0) return;
  outgoing.cork();
  setImmediate(() => outgoing.uncork());
}

async function write(outgoing: ServerResponse, bytes: Uint8Array, options: WriteOptions): Promise<void> {
  if (outgoing.write(bytes) || outgoing.writableLength < options.outputBufferBytes) return;
  while (outgoing.writableCorked > 0) outgoing.uncork();
  await taken(outgoing, { event: "drain", ...options });
}

/** Waits until the reader took what was written, or destroys the answer when that takes too long. */
function taken(outgoing: ServerResponse, wait: WriteOptions & { readonly event: "drain" | "finish" }): Promise<void> {
  return new Promise((resolve) => {
    const settle = () => {
      clearTimeout(timer);
      outgoing.off(wait.event, settle).off("close", settle);
      resolve();
    };
    const timer = setTimeout(() => {
      wait.onSlowReader();
      outgoing.destroy();
    }, wait.slowReaderMs);
    outgoing.on(wait.event, settle).on("close", settle);
  });
}
