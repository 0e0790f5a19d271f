/**
 * Strict JSON files and typed access to their fields.
 *
 * @module
 */
import { ModelFileError } from "./model_file_error.ts";

/** Deepest nesting of a JSON document. */
export const MAX_JSON_DEPTH = 64;

/** A parsed JSON object. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** Whether `value` is an object and not an array or null. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Where a document came from, for messages. */
export interface JsonOrigin {
  /** File name. */
  readonly file: string;
  /** Part of the file. */
  readonly field: string;
}

/**
 * Parses UTF-8 JSON whose root is an object.
 *
 * @throws {ModelFileError} when it is not UTF-8 or JSON, has another root, nests deeper than {@linkcode MAX_JSON_DEPTH},
 * or repeats a key of one object.
 */
export function parseJson(bytes: Uint8Array, { file, field }: JsonOrigin): JsonObject {
  const error = (problem: string, cause?: unknown) => new ModelFileError(file, { field, problem, cause });
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw error("must be UTF-8", cause);
  }
  const { depth, colons } = scan(bytes);
  if (depth > MAX_JSON_DEPTH) throw error(`must nest at most ${MAX_JSON_DEPTH} deep`);
  let root: unknown;
  try {
    root = JSON.parse(text);
  } catch (cause) {
    throw error("must be JSON", cause);
  }
  if (!isJsonObject(root)) throw error("must be a JSON object");
  // Outside of strings every colon belongs to one key, and the parser keeps the last of equal keys.
  if (countKeys(root) !== colons) throw error("repeats a key");
  return root;
}

/** Nesting depth and colons outside of strings, without trusting that the text is JSON. */
function scan(bytes: Uint8Array): { depth: number; colons: number } {
  let depth = 0;
  let deepest = 0;
  let colons = 0;
  for (let index = 0; index < bytes.length; index++) {
    switch (bytes[index]) {
      case 0x22: // "
        index++;
        while (index < bytes.length && bytes[index] !== 0x22) index += bytes[index] === 0x5c ? 2 : 1;
        break;
      case 0x3a: // :
        colons++;
        break;
      case 0x5b: // [
      case 0x7b: // {
        deepest = Math.max(deepest, ++depth);
        break;
      case 0x5d: // ]
      case 0x7d: // }
        depth--;
        break;
    }
  }
  return { depth: deepest, colons };
}

function countKeys(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  const children = Object.values(value);
  let keys = Array.isArray(value) ? 0 : children.length;
  for (const child of children) keys += countKeys(child);
  return keys;
}

/** A JSON object with typed access; `null` counts as absent, as Hugging Face writes it. */
export class JsonDocument {
  /** File name, for messages. */
  readonly file: string;
  /** The parsed object. */
  readonly root: JsonObject;
  readonly #path: string;

  /** `path` is what stands before field names in messages. */
  constructor(file: string, root: JsonObject, { path = "" }: { readonly path?: string } = {}) {
    this.file = file;
    this.root = root;
    this.#path = path;
  }

  /** Value of `key`, undefined when absent or null. */
  get(key: string): unknown {
    return Object.hasOwn(this.root, key) ? this.root[key] ?? undefined : undefined;
  }

  /** The error for field `key`. */
  error(key: string, problem: string): ModelFileError {
    return new ModelFileError(this.file, { field: this.#path + key, problem });
  }

  /** A number. @throws {ModelFileError} when it is something else. */
  number(key: string): number | undefined {
    const value = this.get(key);
    if (value === undefined || typeof value === "number") return value;
    throw this.error(key, `must be a number, got ${JSON.stringify(value)?.slice(0, 40)}`);
  }

  /** A string. @throws {ModelFileError} when it is something else. */
  string(key: string): string | undefined {
    const value = this.get(key);
    if (value === undefined || typeof value === "string") return value;
    throw this.error(key, `must be a string, got ${JSON.stringify(value)?.slice(0, 40)}`);
  }

  /** A boolean. @throws {ModelFileError} when it is something else. */
  boolean(key: string): boolean | undefined {
    const value = this.get(key);
    if (value === undefined || typeof value === "boolean") return value;
    throw this.error(key, `must be true or false, got ${JSON.stringify(value)?.slice(0, 40)}`);
  }

  /** A nested object. @throws {ModelFileError} when it is something else. */
  object(key: string): JsonDocument | undefined {
    const value = this.get(key);
    if (value === undefined) return undefined;
    if (!isJsonObject(value)) throw this.error(key, "must be an object");
    return new JsonDocument(this.file, value, { path: `${this.#path}${key}.` });
  }
}
