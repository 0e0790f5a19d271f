/**
 * Writes GGUF files for tests, broken ones too.
 *
 * @module
 */

/** Numbers of the metadata value types. */
export const GGUF_TYPE = {
  u8: 0,
  i8: 1,
  u16: 2,
  i16: 3,
  u32: 4,
  i32: 5,
  f32: 6,
  bool: 7,
  string: 8,
  array: 9,
  u64: 10,
  i64: 11,
  f64: 12,
} as const;

/** Name of a scalar value type. */
export type GgufScalarType = Exclude<keyof typeof GGUF_TYPE, "array">;

/** A metadata value with its type; an `array` of scalars of one type. */
export type GgufEntry =
  | { readonly type: GgufScalarType; readonly value: number | bigint | string | boolean }
  | {
    readonly type: "array";
    readonly of: GgufScalarType;
    readonly value: ArrayLike<number | bigint | string | boolean>;
  };

/** A tensor as its table entry states it. */
export interface GgufTensor {
  /** Name. */
  readonly name: string;
  /** Dimensions in the order of the file: row length first. */
  readonly dimensions: readonly (number | bigint)[];
  /** Number of the tensor type. */
  readonly type: number;
  /** Stored bytes. */
  readonly data: Uint8Array;
  /** Offset to state instead of the right one. */
  readonly offset?: number | bigint;
}

/** What {@linkcode writeGguf} writes. */
export interface GgufContents {
  /** Format version. @default {3} */
  readonly version?: number;
  /** First four bytes. @default {"GGUF"} */
  readonly magic?: string;
  /** Alignment of the tensor data; the caller states it in the metadata when it is not 32. @default {32} */
  readonly alignment?: number;
  /** Count to state instead of the right one. */
  readonly tensorCount?: number | bigint;
  /** Count to state instead of the right one. */
  readonly entryCount?: number | bigint;
  /** Metadata in order; keys may repeat. */
  readonly metadata: readonly (readonly [string, GgufEntry])[];
  /** Tensors in order. */
  readonly tensors: readonly GgufTensor[];
}

/** Bytes that grow. */
export class ByteWriter {
  #bytes = new Uint8Array(1024);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  /** Bytes written so far. */
  get length(): number {
    return this.#length;
  }

  /** A copy of what was written. */
  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }

  #grow(count: number): number {
    const at = this.#length;
    this.#length += count;
    if (this.#length > this.#bytes.length) {
      const grown = new Uint8Array(2 * this.#length);
      grown.set(this.#bytes);
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    return at;
  }

  /** Raw bytes. */
  bytes(bytes: Uint8Array): void {
    const at = this.#grow(bytes.length);
    this.#bytes.set(bytes, at);
  }

  /** Zeros up to a multiple of `alignment`. */
  align(alignment: number): void {
    this.#grow((alignment - (this.#length % alignment)) % alignment);
  }

  /** Unsigned 32-bit integer. */
  u32(value: number): void {
    const at = this.#grow(4);
    this.#view.setUint32(at, value, true);
  }

  /** 64-bit integer. */
  u64(value: number | bigint): void {
    const at = this.#grow(8);
    if (typeof value === "number" && value >= 0) {
      this.#view.setUint32(at, value % 2 ** 32, true);
      this.#view.setUint32(at + 4, value / 2 ** 32, true);
    } else {
      this.#view.setBigUint64(at, BigInt.asUintN(64, BigInt(value)), true);
    }
  }

  /** Length and UTF-8 bytes. */
  string(value: string): void {
    const encoded = new TextEncoder().encode(value);
    this.u64(encoded.length);
    this.bytes(encoded);
  }

  /** A scalar of a GGUF value type. */
  scalar(type: GgufScalarType, value: number | bigint | string | boolean): void {
    if (type === "string") return this.string(String(value));
    if (type === "u64" || type === "i64") return this.u64(typeof value === "bigint" ? value : Number(value));
    const sizes = { u8: 1, i8: 1, bool: 1, u16: 2, i16: 2, u32: 4, i32: 4, f32: 4, f64: 8 } as const;
    const at = this.#grow(sizes[type]);
    const number = Number(value);
    if (type === "f64") this.#view.setFloat64(at, number, true);
    else if (type === "f32") this.#view.setFloat32(at, number, true);
    else if (sizes[type] === 1) this.#view.setUint8(at, number);
    else if (sizes[type] === 2) this.#view.setUint16(at, number, true);
    else this.#view.setUint32(at, number, true);
  }
}

/** Bytes of a GGUF file. */
export function writeGguf(contents: GgufContents): Uint8Array {
  const { version = 3, magic = "GGUF", alignment = 32, metadata, tensors } = contents;
  const out = new ByteWriter();
  out.bytes(new TextEncoder().encode(magic));
  out.u32(version);
  out.u64(contents.tensorCount ?? tensors.length);
  out.u64(contents.entryCount ?? metadata.length);
  for (const [key, entry] of metadata) {
    out.string(key);
    out.u32(GGUF_TYPE[entry.type]);
    if (entry.type !== "array") {
      out.scalar(entry.type, entry.value);
      continue;
    }
    out.u32(GGUF_TYPE[entry.of]);
    out.u64(entry.value.length);
    for (let index = 0; index < entry.value.length; index++) out.scalar(entry.of, entry.value[index]);
  }
  let offset = 0;
  for (const tensor of tensors) {
    out.string(tensor.name);
    out.u32(tensor.dimensions.length);
    for (const size of tensor.dimensions) out.u64(size);
    out.u32(tensor.type);
    out.u64(tensor.offset ?? offset);
    offset += Math.ceil(tensor.data.length / alignment) * alignment;
  }
  for (const tensor of tensors) {
    out.align(alignment);
    out.bytes(tensor.data);
  }
  out.align(alignment);
  return out.finish();
}
