/**
 * JSON bodies from strangers: bounded before they are parsed, strict about their bytes.
 *
 * @module
 */
import { ApiError } from "./api_error.ts";

/** A parsed JSON object. Keys such as `__proto__` are plain own properties of it. */
export type JsonObject = { readonly [key: string]: unknown };

/** Bounds of {@linkcode parseJsonObject}. */
export interface JsonBounds {
  /** Nesting of arrays and objects. */
  readonly depth: number;
  /** Keys of all objects together. */
  readonly keys: number;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/**
 * Parses a body that has to be one JSON object in well-formed UTF-8.
 *
 * @throws {ApiError} 400 when it is something else or goes over a bound.
 */
export function parseJsonObject(bytes: Uint8Array, bounds: JsonBounds): JsonObject {
  checkBounds(bytes, bounds);
  const text = decode(bytes);
  const value = parse(text);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw invalid("wanted a JSON object");
  }
  // Lone surrogates can only come from escapes, because the bytes themselves are valid UTF-8.
  if (/\\ud[89a-f]/i.test(text)) checkWellFormed(value);
  return value as JsonObject;
}

function invalid(problem: string): ApiError {
  return new ApiError(`Cannot parse the request body: ${problem}`, { status: 400, code: "invalid_json" });
}

function checkBounds(bytes: Uint8Array, bounds: JsonBounds): void {
  let depth = 0;
  let keys = 0;
  let inString = false;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i];
    if (inString) {
      if (byte === BACKSLASH) i++;
      else if (byte === QUOTE) inString = false;
      continue;
    }
    switch (byte) {
      case QUOTE:
        inString = true;
        break;
      case 0x5b: // [
      case 0x7b: // {
        if (++depth > bounds.depth) throw invalid(`wanted at most ${bounds.depth} levels of nesting, found more`);
        break;
      case 0x5d: // ]
      case 0x7d: // }
        depth--;
        break;
      case 0x3a: // :
        if (++keys > bounds.keys) throw invalid(`wanted at most ${bounds.keys} keys, found more`);
        break;
    }
  }
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw invalid("wanted UTF-8, found other bytes");
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    // The engine's own message quotes the body, which may be a prompt.
    const position = error instanceof SyntaxError ? /position (\d+)/.exec(error.message)?.[1] : undefined;
    throw invalid(position === undefined ? "it is not JSON" : `it is not JSON at position ${position}`);
  }
}

function checkWellFormed(value: unknown): void {
  if (typeof value === "string") {
    if (!value.isWellFormed()) throw invalid("a string holds half of a surrogate pair");
  } else if (typeof value === "object" && value !== null) {
    for (const [key, item] of Object.entries(value)) {
      checkWellFormed(key);
      checkWellFormed(item);
    }
  }
}
