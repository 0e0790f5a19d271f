/**
 * Strict checks of values that came as JSON: every string and array has a cap, every key is known.
 *
 * @module
 */

/** Says where a value is not what was wanted. */
export class SchemaError extends Error {
  /** Error name. */
  override readonly name = "SchemaError";
  /** What is wrong, without the place. */
  readonly problem: string;
  /** Place inside the value, outermost first. */
  readonly path: readonly (string | number)[];
  /** Makes one. */
  constructor(problem: string, path: readonly (string | number)[] = []) {
    super(path.length === 0 ? problem : `${path.join(".")}: ${problem}`);
    this.problem = problem;
    this.path = path;
  }
}

/** A problem whose place is added on the way out. */
export function wrong(problem: string): SchemaError {
  return new SchemaError(problem);
}

/** Returns the value when it is a T. @throws {SchemaError} otherwise. */
export type Schema<T> = (value: unknown) => T;

/** What a schema checks for. */
export type Checked<S> = S extends Schema<infer T> ? T : never;

function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  if (Array.isArray(value)) return `an array of ${value.length}`;
  return value !== null && typeof value === "object" ? "an object" : String(value);
}

function inside<T>(key: string | number, schema: Schema<T>, value: unknown): T {
  try {
    return schema(value);
  } catch (error) {
    if (!(error instanceof SchemaError)) throw error;
    throw new SchemaError(error.problem, [key, ...error.path]);
  }
}

/** One of some values. */
export function oneOf<const T extends string | boolean>(...values: readonly T[]): Schema<T> {
  return (value) => {
    const found = values.find((candidate) => candidate === value);
    if (found === undefined) throw wrong(`wanted ${values.join(" or ")}, got ${show(value)}`);
    return found;
  };
}

/** An integer from `min` to `max`, both below 2^53. */
export function integer(min: number = 0, max: number = Number.MAX_SAFE_INTEGER): Schema<number> {
  return (value) => {
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < min || value > max) {
      throw wrong(`wanted an integer from ${min} to ${max}, got ${show(value)}`);
    }
    return value;
  };
}

/** A finite number. */
export const finite: Schema<number> = (value) => {
  if (typeof value !== "number" || !Number.isFinite(value)) {
    throw wrong(`wanted a finite number, got ${show(value)}`);
  }
  return value;
};

/** Text of at most `max` UTF-16 units, without lone surrogates, that matches `pattern` if there is one. */
export function text(max: number, pattern?: RegExp): Schema<string> {
  return (value) => {
    if (typeof value !== "string" || value.length > max || !value.isWellFormed()) {
      throw wrong(`wanted text of at most ${max} units, got ${show(value)}`);
    }
    if (pattern && !pattern.test(value)) {
      throw wrong(`wanted text like ${pattern.source}, got ${show(value)}`);
    }
    return value;
  };
}

/** An array of at most `max`. */
export function list<T>(of: Schema<T>, max: number): Schema<readonly T[]> {
  return (value) => {
    if (!Array.isArray(value) || value.length > max) {
      throw wrong(`wanted an array of at most ${max}, got ${show(value)}`);
    }
    for (let i = 0; i < value.length; i++) inside(i, of, value[i]);
    return value;
  };
}

/** An object with at most `max` keys that match `keys`. */
export function table<T>(of: Schema<T>, { keys, max }: { readonly keys: RegExp; readonly max: number }): Schema<
  Readonly<Record<string, T>>
> {
  return (value) => {
    const entries = entriesOf(value);
    if (entries.length > max) throw wrong(`wanted at most ${max} keys, got ${entries.length}`);
    const checked: [string, T][] = [];
    for (const [key, field] of entries) {
      if (!keys.test(key) || key === "__proto__") {
        throw wrong(`wanted a key like ${keys.source}, got ${show(key)}`);
      }
      checked.push([key, inside(key, of, field)]);
    }
    return Object.fromEntries(checked);
  };
}

/** A field that may be absent. */
export interface Optional<T> {
  /** What it is when it is there. */
  readonly optional: Schema<T>;
}

/** A field that may be absent. */
export function optional<T>(schema: Schema<T>): Optional<T> {
  return { optional: schema };
}

type Fields = Readonly<Record<string, Schema<unknown> | Optional<unknown>>>;

type Flat<T> = { readonly [K in keyof T]: T[K] };

/** The object that some fields describe. */
export type RecordOf<F extends Fields> = Flat<
  & { readonly [K in keyof F as F[K] extends Schema<unknown> ? K : never]: Checked<F[K]> }
  & {
    readonly [K in keyof F as F[K] extends Optional<unknown> ? K : never]?: F[K] extends Optional<infer T> ? T : never;
  }
>;

/** An object with exactly these fields. A field that is `undefined` counts as absent. */
export function record<const F extends Fields>(fields: F): Schema<RecordOf<F>> {
  const required = Object.keys(fields).filter((key) => typeof fields[key] === "function");
  function isRecord(value: object, entries: readonly [string, unknown][]): value is RecordOf<F> {
    let present = 0;
    for (const [key, field] of entries) {
      const schema = Object.hasOwn(fields, key) ? fields[key] : undefined;
      if (schema === undefined) throw wrong(`unknown key ${show(key)}`);
      if (field === undefined && typeof schema !== "function") continue;
      inside(key, typeof schema === "function" ? schema : schema.optional, field);
      if (typeof schema === "function") present++;
    }
    if (present < required.length) {
      throw wrong(`missing key ${show(required.find((key) => !Object.hasOwn(value, key)))}`);
    }
    return true;
  }
  return (value) => {
    const entries = entriesOf(value);
    if (typeof value === "object" && value !== null && isRecord(value, entries)) return value;
    throw wrong(`wanted an object, got ${show(value)}`);
  };
}

function entriesOf(value: unknown): [string, unknown][] {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw wrong(`wanted an object, got ${show(value)}`);
  }
  return Object.entries(value);
}
