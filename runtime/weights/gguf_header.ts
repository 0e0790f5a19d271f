/**
 * Cursor over the header of a GGUF file: little-endian scalars, strings and arrays, with every size checked against the
 * file before memory is taken for it.
 *
 * @module
 */
import type { ByteSource } from "./byte_source.ts";
import { ModelFileError } from "./model_file_error.ts";

/** Largest header (metadata and tensor table); it is kept in memory. */
export const MAX_HEADER_BYTES: number = 64 * 2 ** 20;
/** Longest string value. */
export const MAX_STRING_BYTES: number = 16 * 2 ** 20;
/** Most elements in one array value. */
export const MAX_ARRAY_ELEMENTS: number = 4 * 2 ** 20;
/** First piece of the header that is read; the piece doubles as the header goes on. */
const FIRST_READ_BYTES = 2 ** 20;

/** A number array of GGUF metadata; the class tells the stored type. 64-bit integers are read as numbers below 2^53. */
export type GgufNumbers =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array;

/** A metadata value. A 64-bit integer is a number when it is a safe integer, else a bigint. */
export type GgufValue = number | bigint | boolean | string | GgufNumbers | GgufStrings;

function utf8(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
}

/** A string array of GGUF metadata, decoded only when asked for. */
export class GgufStrings {
  /** Number of strings. */
  readonly length: number;
  readonly #bytes: Uint8Array;
  readonly #starts: Uint32Array;
  readonly #where: { readonly file: string; readonly field: string };

  /** `starts[i]` is where the text of string i begins in `bytes`; `starts[length]` is the end of the last plus 8. */
  constructor(bytes: Uint8Array, starts: Uint32Array, where: { readonly file: string; readonly field: string }) {
    this.length = starts.length - 1;
    this.#bytes = bytes;
    this.#starts = starts;
    this.#where = where;
  }

  /** Stored bytes of string `index`: a view. */
  bytesAt(index: number): Uint8Array {
    return this.#bytes.subarray(this.#starts[index], this.#starts[index + 1] - 8);
  }

  /** String `index`. @throws {ModelFileError} when the bytes are not UTF-8. */
  at(index: number): string {
    try {
      return utf8(this.bytesAt(index));
    } catch (cause) {
      throw new ModelFileError(this.#where.file, {
        field: `${this.#where.field}[${index}]`,
        problem: "must be UTF-8",
        cause,
      });
    }
  }

  /** All strings. @throws {ModelFileError} when one is not UTF-8. */
  toArray(): string[] {
    return this.#splitDecoded() ?? Array.from({ length: this.length }, (_, index) => this.at(index));
  }

  /** One decoder call for all strings, joined by NUL: 20 times as fast as one call each. Not for strings with NUL. */
  #splitDecoded(): string[] | undefined {
    if (this.length === 0) return [];
    const joined = new Uint8Array(this.#starts[this.length] - this.#starts[0] - 8 * this.length + this.length - 1);
    let end = 0;
    for (let index = 0; index < this.length; index++) {
      const bytes = this.bytesAt(index);
      joined.set(bytes, end);
      end += bytes.length + 1;
    }
    try {
      const strings = utf8(joined).split("\0");
      return strings.length === this.length ? strings : undefined;
    } catch {
      return undefined;
    }
  }
}

/** Reads the header front to back. */
export class GgufHeader {
  readonly #source: ByteSource;
  #bytes = new Uint8Array(0);
  #view = new DataView(this.#bytes.buffer);
  #position = 0;
  /** What is being read, for messages. */
  field = "header";

  /** Reads nothing yet. */
  constructor(source: ByteSource) {
    this.#source = source;
  }

  /** Offset of the next byte. */
  get position(): number {
    return this.#position;
  }

  /** Bytes of the file after the next byte. */
  get remaining(): number {
    return this.#source.size - this.#position;
  }

  /** Bytes read so far. */
  get consumed(): Uint8Array {
    return this.#bytes.subarray(0, this.#position);
  }

  /** The error for the field being read. */
  error(problem: string, cause?: unknown): ModelFileError {
    return new ModelFileError(this.#source.name, { field: this.field, problem, cause });
  }

  #need(count: number): void {
    const end = this.#position + count;
    if (end <= this.#bytes.length) return;
    if (end > this.#source.size) {
      throw this.error(`needs ${count} bytes at ${this.#position}, the file has ${this.#source.size}`);
    }
    if (end > MAX_HEADER_BYTES) throw this.error(`makes the header longer than ${MAX_HEADER_BYTES} bytes`);
    const wanted = Math.max(end, 2 * this.#bytes.length, FIRST_READ_BYTES);
    const grown = new Uint8Array(Math.min(wanted, this.#source.size, MAX_HEADER_BYTES));
    grown.set(this.#bytes);
    this.#source.readInto(grown.subarray(this.#bytes.length), this.#bytes.length);
    this.#bytes = grown;
    this.#view = new DataView(grown.buffer);
  }

  /** Moves past `count` bytes and returns where they began. */
  #take(count: number): number {
    this.#need(count);
    const start = this.#position;
    this.#position += count;
    return start;
  }

  /** Next `count` bytes, a view. */
  takeBytes(count: number): Uint8Array {
    const start = this.#take(count);
    return this.#bytes.subarray(start, start + count);
  }

  /** Unsigned 32-bit integer. */
  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  /** Unsigned 64-bit integer that must be at most `limit`. */
  count(limit: number): number {
    const value = this.#unsigned64();
    if (value > limit) throw this.error(`must be at most ${limit}, got ${value}`);
    return Number(value);
  }

  #unsigned64(): number | bigint {
    const start = this.#take(8);
    const high = this.#view.getUint32(start + 4, true);
    if (high >= 2 ** 21) return this.#view.getBigUint64(start, true);
    return high * 2 ** 32 + this.#view.getUint32(start, true);
  }

  #signed64(): number | bigint {
    const value = this.#view.getBigInt64(this.#take(8), true);
    return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  }

  /** A string: 64-bit length, then UTF-8. @throws {ModelFileError} */
  string(limit: number = MAX_STRING_BYTES): string {
    const bytes = this.takeBytes(this.count(limit));
    try {
      return utf8(bytes);
    } catch (cause) {
      throw this.error("must be UTF-8", cause);
    }
  }

  /** A value of GGUF value type `type`. @throws {ModelFileError} */
  value(type: number): GgufValue {
    switch (type) {
      case 0:
        return this.#view.getUint8(this.#take(1));
      case 1:
        return this.#view.getInt8(this.#take(1));
      case 2:
        return this.#view.getUint16(this.#take(2), true);
      case 3:
        return this.#view.getInt16(this.#take(2), true);
      case 4:
        return this.u32();
      case 5:
        return this.#view.getInt32(this.#take(4), true);
      case 6:
        return this.#view.getFloat32(this.#take(4), true);
      case 7:
        return this.#boolean();
      case 8:
        return this.string();
      case 9:
        return this.#array();
      case 10:
        return this.#unsigned64();
      case 11:
        return this.#signed64();
      case 12:
        return this.#view.getFloat64(this.#take(8), true);
      default:
        throw this.error(`has value type ${type}, known are 0 to 12`);
    }
  }

  #boolean(): boolean {
    const byte = this.#view.getUint8(this.#take(1));
    if (byte > 1) throw this.error(`must be a boolean byte 0 or 1, got ${byte}`);
    return byte === 1;
  }

  #array(): GgufNumbers | GgufStrings {
    const type = this.u32();
    const length = this.count(MAX_ARRAY_ELEMENTS);
    switch (type) {
      case 0:
        return Uint8Array.from(this.takeBytes(length));
      case 1:
        return new Int8Array(this.#copy(length));
      case 2:
        return new Uint16Array(this.#copy(2 * length));
      case 3:
        return new Int16Array(this.#copy(2 * length));
      case 4:
        return new Uint32Array(this.#copy(4 * length));
      case 5:
        return new Int32Array(this.#copy(4 * length));
      case 6:
        return new Float32Array(this.#copy(4 * length));
      case 7:
        return Uint8Array.from(this.takeBytes(length));
      case 8:
        return this.#strings(length);
      case 9:
        throw this.error("is an array of arrays, which is not supported");
      case 10:
        return this.#integers(length, () => this.#unsigned64());
      case 11:
        return this.#integers(length, () => this.#signed64());
      case 12:
        return new Float64Array(this.#copy(8 * length));
      default:
        throw this.error(`is an array of value type ${type}, known are 0 to 12`);
    }
  }

  /** An aligned copy; typed arrays read it in the machine's order, which is little-endian wherever Deno runs. */
  #copy(bytes: number): ArrayBuffer {
    return Uint8Array.from(this.takeBytes(bytes)).buffer;
  }

  #integers(length: number, next: () => number | bigint): Float64Array {
    this.#need(8 * length);
    return Float64Array.from({ length }, (_, index) => {
      const value = next();
      if (typeof value === "bigint") throw this.error(`holds ${value} at ${index}, wanted integers below 2^53`);
      return value;
    });
  }

  #strings(length: number): GgufStrings {
    // Every string takes at least its eight length bytes, so the table below stays smaller than the file.
    if (8 * length > this.remaining) {
      throw this.error(`has ${length} strings, the file has only ${this.remaining} bytes left`);
    }
    const starts = new Uint32Array(length + 1);
    for (let index = 0; index < length; index++) {
      const start = this.#take(8);
      const size = this.#view.getUint32(start, true);
      if (this.#view.getUint32(start + 4, true) !== 0 || size > MAX_STRING_BYTES) {
        throw this.error(`has a string longer than ${MAX_STRING_BYTES} bytes at ${index}`);
      }
      starts[index] = start + 8;
      this.#take(size);
    }
    starts[length] = this.#position + 8;
    return new GgufStrings(this.#bytes, starts, { file: this.#source.name, field: this.field });
  }
}
