/**
 * JSON as the payload of a frame.
 *
 * @module
 */
import { PeerError } from "../links/link.ts";
import { type Schema, SchemaError } from "./schema.ts";

/** Deepest nesting that a message needs, and some. */
const MAX_DEPTH = 16;

const TEXT = new TextDecoder("utf-8", { fatal: true });

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/** Whether brackets nest no deeper than {@linkcode MAX_DEPTH}; decided before the parser sets memory aside. */
function isShallow(bytes: Uint8Array): boolean {
  let depth = 0;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i];
    if (byte === QUOTE) {
      for (i++; i < bytes.length && bytes[i] !== QUOTE; i++) {
        if (bytes[i] === BACKSLASH) i++;
      }
    } else if (byte === 0x7b || byte === 0x5b) {
      if (++depth > MAX_DEPTH) return false;
    } else if (byte === 0x7d || byte === 0x5d) {
      depth--;
    }
  }
  return true;
}

/**
 * Parses `payload`.
 *
 * @param what The message, for the error.
 * @throws {PeerError} `protocol`, when it is not UTF-8, not JSON, nests too deep, or is not what `schema` wants.
 */
export function parseJson<T>(payload: Uint8Array, schema: Schema<T>, what: string): T {
  if (!isShallow(payload)) {
    throw new PeerError(`Cannot decode ${what}: wanted at most ${MAX_DEPTH} levels of brackets`, { code: "protocol" });
  }
  try {
    return schema(JSON.parse(TEXT.decode(payload)));
  } catch (cause) {
    if (cause instanceof SchemaError || cause instanceof SyntaxError || cause instanceof TypeError) {
      throw new PeerError(`Cannot decode ${what}: ${cause.message}`, { code: "protocol", cause });
    }
    throw cause;
  }
}
