/**
 * Request bodies: type and size are checked before the first byte, the size again while they arrive.
 *
 * @module
 */
import type { IncomingMessage } from "node:http";
import { ApiError } from "./api_error.ts";

/** Options of {@linkcode readBody}. */
export interface ReadBodyOptions {
  /** Most bytes. */
  readonly limitBytes: number;
  /** Called when the body is wanted, for clients that wait for `100 Continue`. */
  readonly onWanted?: () => void;
}

/**
 * Refuses bodies that are not plain JSON.
 *
 * @throws {ApiError} 415 for another content type, another charset or a content encoding.
 */
export function checkJsonHeaders(incoming: IncomingMessage): void {
  const encoding = incoming.headers["content-encoding"];
  if (encoding !== undefined && encoding.trim().toLowerCase() !== "identity") {
    throw new ApiError("Cannot read the request body: content encodings are not accepted", {
      status: 415,
      code: "unsupported_content_encoding",
      headers: { "accept-encoding": "identity" },
    });
  }
  const [type, ...parameters] = (incoming.headers["content-type"] ?? "").split(";").map((part) => part.trim());
  const charset = parameters.find((parameter) => /^charset=/i.test(parameter));
  if (type.toLowerCase() !== "application/json" || (charset && !/^charset="?utf-8"?$/i.test(charset))) {
    throw new ApiError("Cannot read the request body: wanted content type application/json in UTF-8", {
      status: 415,
      code: "unsupported_media_type",
      headers: { accept: "application/json" },
    });
  }
}

/**
 * Reads the whole body.
 *
 * @throws {ApiError} 413 as soon as it is known to be too long; the rest is not read.
 */
export function readBody(incoming: IncomingMessage, options: ReadBodyOptions): Promise<Uint8Array> {
  if (Number(incoming.headers["content-length"] ?? 0) > options.limitBytes) {
    return Promise.reject(tooLarge(options.limitBytes));
  }
  if (incoming.destroyed) return Promise.reject(cutOff());
  options.onWanted?.();
  return new Promise((resolve, reject) => {
    const chunks: Uint8Array[] = [];
    let length = 0;
    const finish = (settle: () => void) => {
      incoming.off("data", onData).off("end", onEnd).off("error", onError).off("close", onClose);
      settle();
    };
    const onData = (chunk: Uint8Array) => {
      length += chunk.length;
      chunks.push(chunk);
      if (length > options.limitBytes) {
        incoming.pause();
        finish(() => reject(tooLarge(options.limitBytes)));
      }
    };
    const onEnd = () => finish(() => resolve(concatenate(chunks, length)));
    const onError = () => finish(() => reject(cutOff()));
    const onClose = () => finish(() => reject(cutOff()));
    incoming.on("data", onData).on("end", onEnd).on("error", onError).on("close", onClose);
  });
}

function tooLarge(limitBytes: number): ApiError {
  return new ApiError(`Cannot read the request body: wanted at most ${limitBytes} bytes, got more`, {
    status: 413,
    code: "body_too_large",
    headers: { connection: "close" },
  });
}

function cutOff(): ApiError {
  return new ApiError("Cannot read the request body: the connection ended before it did", {
    status: 400,
    code: "incomplete_body",
    headers: { connection: "close" },
  });
}

function concatenate(chunks: readonly Uint8Array[], length: number): Uint8Array {
  if (chunks.length === 1) return chunks[0];
  const whole = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}
