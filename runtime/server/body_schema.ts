/**
 * Reading a JSON body against a schema. `null` means absent; fields that are known but not served are refused by name;
 * unknown ones are skipped and reported.
 *
 * @module
 */
import { z } from "zod";
import { ApiError, fieldError } from "./api_error.ts";
import type { JsonObject } from "./parse_json.ts";

/** A JSON Schema document. */
export type JsonSchema = { readonly [key: string]: unknown };

/** A body that was read. */
export interface ReadResult<T> {
  /** Its known fields. */
  readonly value: T;
  /** Names of fields that were skipped, at most 16, each cut to 64 characters. */
  readonly ignored: readonly string[];
}

/** Known fields that are not served, each with a test for the values that ask for nothing. */
export type UnservedFields = Readonly<Record<string, (value: unknown) => boolean>>;

const MOST_IGNORED = 16;
const IGNORED_LENGTH = 64;

/** Schema of one request body. */
export class BodySchema<T> {
  readonly #schema: z.ZodType<T>;
  readonly #fields: ReadonlySet<string>;
  readonly #unserved: UnservedFields;

  /** Reads the fields of `schema`; `unserved` names those that are refused. */
  constructor(schema: z.ZodObject & z.ZodType<T>, unserved: UnservedFields = {}) {
    this.#schema = schema;
    this.#fields = new Set(Object.keys(schema.shape));
    this.#unserved = unserved;
  }

  /**
   * Reads a body.
   *
   * @throws {ApiError} 400 that names the first field at fault.
   */
  read(body: JsonObject): ReadResult<T> {
    const known: Record<string, unknown> = {};
    const ignored: string[] = [];
    for (const [name, value] of Object.entries(body)) {
      if (value === null) continue;
      if (this.#fields.has(name)) known[name] = value;
      else if (Object.hasOwn(this.#unserved, name)) this.#refuseUnserved(name, value);
      else if (ignored.length < MOST_IGNORED) ignored.push(name.slice(0, IGNORED_LENGTH));
    }
    const result = this.#schema.safeParse(known);
    if (result.success) return { value: result.data, ignored };
    const issue = result.error.issues[0];
    throw fieldError(z.core.toDotPath(issue.path), issue.message);
  }

  /** Its JSON Schema (2020-12). */
  toJsonSchema(): JsonSchema {
    return z.toJSONSchema(this.#schema, { io: "input" });
  }

  #refuseUnserved(name: string, value: unknown): void {
    if (this.#unserved[name](value)) return;
    throw new ApiError(`Cannot serve ${name}: this field is not supported yet`, {
      status: 400,
      code: "unsupported_parameter",
      param: name,
    });
  }
}
