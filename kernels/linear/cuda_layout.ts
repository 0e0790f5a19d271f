/**
 * How weights lie on the GPU for `linear_direct.cu`.
 *
 * `BF16`: row-major, as for every other product. `Q8_0`, `Q4_0`, `Q4_1`: a matrix [R, K] is cut into tiles of 64 rows x 64 columns; tile
 * (t, k) is number t * ceil(K / 64) + k, a tile is four records of 16 rows. A record holds the integers in the order of the
 * tensor cores' fragments, then for each g below 8 the f16 scales of rows g (both blocks of 32 columns) and g + 8, then (Q4_1) the
 * minimums likewise. Lane (g, j) has columns 8j to 8j + 7 of both blocks of rows g and g + 8: four words of eight nibbles
 * (column 2i at bit 4i, column 2i + 1 at bit 16 + 4i), or for Q8_0 eight words of four bytes (columns 0, 2, 1, 3), of which a record
 * holds the first block's four for all lanes, then the second's. Beyond the matrix everything is zero.
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

/** Rows of a tile. */
export const TILE_ROWS = 64;
/** Columns of a tile. */
export const TILE_COLS = 64;

/** Stored bytes of one tile. */
export const TILE_BYTES: Readonly<Record<CudaPackedType, number>> = { Q8_0: 4352, Q4_0: 2304, Q4_1: 2560 };

/** Shape and type of a matrix. */
export interface CudaMatrixShape {
  /** Type of the weights. */
  readonly dtype: CudaWeightType;
  /** R, output features. */
  readonly rows: number;
  /** K, input features; a multiple of 32 unless the type is BF16. */
  readonly cols: number;
}

/** Tiles across `size` rows or columns. */
export function tilesOf(size: number): number {
  return Math.ceil(size / TILE_ROWS);
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
  return dtype === "BF16" ? 2 * rows * cols : tilesOf(rows) * tilesOf(cols) * TILE_BYTES[dtype];
}

/** Tiles stored rows of a quantised type. @throws {RangeError} when the length does not fit. */
export function tilePacked(
  stored: Uint8Array,
  shape: CudaMatrixShape & { readonly dtype: CudaPackedType },
): Uint8Array {
  const { dtype, rows, cols } = shape;
  const blockBytes = DTYPE_LAYOUT[dtype].bytes;
  const out = new Uint8Array(cudaMatrixBytes(shape));
  if (stored.length !== rows * cols / 32 * blockBytes) {
    throw new RangeError(
      `Cannot tile a ${dtype} matrix: wanted ${rows * cols / 32 * blockBytes} bytes, got ${stored.length}`,
    );
  }
  for (let row = 0; row < rows; row++) {
    for (let block = 0; block < cols / 32; block++) {
      const at = (row * cols / 32 + block) * blockBytes;
      const tile = Math.floor(row / TILE_ROWS) * tilesOf(cols) + (block >> 1);
      const record = tile * TILE_BYTES[dtype] + (row % TILE_ROWS >> 4) * (TILE_BYTES[dtype] / 4);
      placeBlock(stored.subarray(at, at + blockBytes), { dtype, row: row % 16, second: block & 1, out, record });
    }
  }
  return out;
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
    const [lane, i] = [4 * g + (column >> 3), column % 8];
    if (dtype === "Q8_0") {
      const inWord = [0, 2, 1, 3][i % 4];
      out[record + 512 * second + 16 * lane + 8 * lower + 4 * (i >> 2) + inWord] = block[head + column];
      continue;
    }
    const nibble = block[head + column % 16] >> (column < 16 ? 0 : 4) & 15;
    const bit = 4 * (i >> 1) + 16 * (i & 1);
    out[record + 16 * lane + 8 * second + 4 * lower + (bit >> 3)] |= nibble << (bit & 7);
  }
}
