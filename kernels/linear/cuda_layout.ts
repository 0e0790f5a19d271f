/**
 * How weights lie on the GPU for products of few tokens.
 *
 * `BF16`: row-major, as for every other product. `Q8_0`, `Q4_0`, `Q4_1`: a matrix [R, K] is cut into strips of 16 rows, a strip
 * into records of 64 columns, two blocks a row; record k of strip s is number s * ceil(K / 64) + k. Gate and up of an MLP share
 * strips: eight rows of gate, then the same eight of up.
 *
 * A record holds the integers in the order of the tensor cores' fragments, then for each g below 8 the f16 scales of rows g
 * (both blocks) and g + 8, then (Q4_1) the minimums likewise. Lane (g, j) has of both blocks of rows g and g + 8 four pairs of
 * columns: pair i is columns 8i + 2j and 8i + 2j + 1. They are four words of eight nibbles (the first of pair i at bit 4i, the
 * second at bit 16 + 4i; of Q4_0 with the highest bit inverted, which makes them numbers in two's complement), or for
 * Q8_0 eight words of four bytes (two pairs, the first of each before the seconds), of which a record holds the first
 * block's four for all lanes, then the second's. Beyond the matrix everything is zero.
 *
 * {@linkcode tilePacked} is the reference of `linear_pack.cu`.
 *
 * @module
 */
import { DTYPE_LAYOUT } from "../dtype.ts";

/** Packed weight types that the GPU multiplies without expanding them first. */
export type CudaPackedType = "Q8_0" | "Q4_0" | "Q4_1";

/** Weight types of a product of few tokens. */
export type CudaWeightType = "BF16" | CudaPackedType;

/** Rows of a strip. */
export const STRIP_ROWS = 16;
/** Columns of a record. */
export const RECORD_COLS = 64;

/** Bytes of one record. */
export const RECORD_BYTES: Readonly<Record<CudaPackedType, number>> = { Q8_0: 1088, Q4_0: 576, Q4_1: 640 };

/** Which of two matrices that share strips; each has half of a strip's rows. */
export type StripHalf = "first" | "second";

/** Shape and type of a matrix. */
export interface CudaMatrixShape {
  /** Type of the weights. */
  readonly dtype: CudaWeightType;
  /** R, output features. */
  readonly rows: number;
  /** K, input features; a multiple of 32 unless the type is BF16. */
  readonly cols: number;
}

/**
 * Bytes of a matrix on the GPU.
 *
 * @throws {RangeError} when a size is no positive integer or no whole number of blocks; names the axis.
 */
export function cudaMatrixBytes({ dtype, rows, cols }: CudaMatrixShape): number {
  const block = DTYPE_LAYOUT[dtype].elements;
  for (const [axis, size, unit] of [["R (rows)", rows, 1], ["K (cols)", cols, block]] as const) {
    if (!Number.isSafeInteger(size) || size < 1 || size % unit !== 0) {
      throw new RangeError(
        `Cannot lay out a ${dtype} matrix: axis ${axis} must be a positive multiple of ${unit}, got ${size}`,
      );
    }
  }
  if (dtype === "BF16") return 2 * rows * cols;
  return Math.ceil(rows / STRIP_ROWS) * Math.ceil(cols / RECORD_COLS) * RECORD_BYTES[dtype];
}

/** Bytes of gate and up of these rows, sharing strips. @throws {RangeError} as {@linkcode cudaMatrixBytes} does. */
export function cudaPairBytes(shape: CudaMatrixShape): number {
  return shape.dtype === "BF16"
    ? 2 * cudaMatrixBytes(shape)
    : cudaMatrixBytes({ ...shape, rows: 2 * Math.ceil(shape.rows / 8) * 8 });
}

/** Records of stored rows of a quantised type. @throws {RangeError} when the length does not fit. */
export function tilePacked(
  stored: Uint8Array,
  shape: CudaMatrixShape & { readonly dtype: CudaPackedType },
): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(cudaMatrixBytes(shape));
  placeRows(stored, shape, { out, placeOf: (row) => [Math.floor(row / STRIP_ROWS), row % STRIP_ROWS] });
  return out;
}

/** Records of two matrices of a shape that share strips. @throws {RangeError} when a length does not fit. */
export function tilePair(
  matrices: { readonly first: Uint8Array; readonly second: Uint8Array },
  shape: CudaMatrixShape & { readonly dtype: CudaPackedType },
): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(cudaPairBytes(shape));
  placeRows(matrices.first, shape, { out, placeOf: (row) => [row >> 3, row % 8] });
  placeRows(matrices.second, shape, { out, placeOf: (row) => [row >> 3, row % 8 + 8] });
  return out;
}

function placeRows(
  stored: Uint8Array,
  { dtype, rows, cols }: CudaMatrixShape & { readonly dtype: CudaPackedType },
  { out, placeOf }: { readonly out: Uint8Array; readonly placeOf: (row: number) => readonly [number, number] },
): void {
  const blockBytes = DTYPE_LAYOUT[dtype].bytes;
  if (stored.length !== rows * cols / 32 * blockBytes) {
    throw new RangeError(
      `Cannot tile a ${dtype} matrix: wanted ${rows * cols / 32 * blockBytes} bytes, got ${stored.length}`,
    );
  }
  for (let row = 0; row < rows; row++) {
    const [strip, place] = placeOf(row);
    for (let block = 0; block < cols / 32; block++) {
      const at = (row * cols / 32 + block) * blockBytes;
      const record = (strip * Math.ceil(cols / RECORD_COLS) + (block >> 1)) * RECORD_BYTES[dtype];
      placeBlock(stored.subarray(at, at + blockBytes), { dtype, row: place, second: block & 1, out, record });
    }
  }
}

function placeBlock(
  block: Uint8Array,
  { dtype, row, second, out, record }: {
    readonly dtype: CudaPackedType;
    readonly row: number;
    readonly second: number;
    readonly out: Uint8Array;
    readonly record: number;
  },
): void {
  const [g, lower] = [row % 8, row >> 3];
  const integerBytes = dtype === "Q8_0" ? 1024 : 512;
  const scales = record + integerBytes + 8 * g + 4 * lower + 2 * second;
  out.set(block.subarray(0, 2), scales);
  if (dtype === "Q4_1") out.set(block.subarray(2, 4), scales + 64);
  const head = dtype === "Q4_1" ? 4 : 2;
  for (let column = 0; column < 32; column++) {
    const [pair, lane, last] = [column >> 3, 4 * g + (column % 8 >> 1), column & 1];
    if (dtype === "Q8_0") {
      out[record + 512 * second + 16 * lane + 8 * lower + 4 * (pair >> 1) + (pair & 1) + 2 * last] =
        block[head + column];
      continue;
    }
    const nibble = block[head + column % 16] >> (column < 16 ? 0 : 4) & 15 ^ (dtype === "Q4_0" ? 8 : 0);
    const bit = 4 * pair + 16 * last;
    out[record + 16 * lane + 8 * second + 4 * lower + (bit >> 3)] |= nibble << (bit & 7);
  }
}
