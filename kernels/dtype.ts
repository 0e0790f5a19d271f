/**
 * Element types of stored tensors and the sizes of their blocks.
 *
 * @module
 */

/** Element type of a weight tensor, named as GGUF names it. */
export type DType =
  | "F32"
  | "F16"
  | "BF16"
  | "Q8_0"
  | "Q4_0"
  | "Q4_1"
  | "Q4_K"
  | "Q5_K"
  | "Q6_K";

/** Element type of a KV pool that processors can have. */
export type HostKvType = "f32" | "f16" | "bf16";

/** Element type of a KV pool; `fp8` is e4m3 (see `e4m3.ts`), which only GPUs store. */
export type KvType = HostKvType | "fp8";

/** How the input of a quantised matrix product is represented. */
export type ActivationType = "i8" | "f32";

/** Block geometry of a {@linkcode DType}: `bytes` bytes hold `elements` consecutive values of one row. */
export interface BlockLayout {
  /** Values in one block. */
  readonly elements: number;
  /** Stored size of one block in bytes. */
  readonly bytes: number;
}

/** Block geometry of every supported weight type. Source: the GGUF format's tensor types. */
export const DTYPE_LAYOUT: Readonly<Record<DType, BlockLayout>> = {
  F32: { elements: 1, bytes: 4 },
  F16: { elements: 1, bytes: 2 },
  BF16: { elements: 1, bytes: 2 },
  Q8_0: { elements: 32, bytes: 34 },
  Q4_0: { elements: 32, bytes: 18 },
  Q4_1: { elements: 32, bytes: 20 },
  Q4_K: { elements: 256, bytes: 144 },
  Q5_K: { elements: 256, bytes: 176 },
  Q6_K: { elements: 256, bytes: 210 },
};

/** Bytes of one KV element. */
export const KV_ELEMENT_BYTES: Readonly<Record<KvType, number>> = { f32: 4, f16: 2, bf16: 2, fp8: 1 };

/**
 * Stored size in bytes of `rows` rows of `cols` values.
 *
 * @throws {RangeError} when `cols` is not a multiple of the type's block.
 */
export function tensorBytes(dtype: DType, rows: number, cols: number): number {
  const { elements, bytes } = DTYPE_LAYOUT[dtype];
  if (cols % elements !== 0) {
    throw new RangeError(`Cannot size a ${dtype} tensor: row length must be a multiple of ${elements}, got ${cols}`);
  }
  return rows * (cols / elements) * bytes;
}
