/**
 * How weights lie on the GPU for the products that stream them (`linear_skinny.cu`, `linear_packed.cu`).
 *
 * A matrix [R, K] is cut into tiles of 64 rows x 64 columns; tile (t, k) is number t * ceil(K / 64) + k. Rows and columns beyond
 * the matrix are zero.
 *
 * - `BF16`: 64 rows of 128 bytes; 16-byte chunk c of row r lies at c ^ (r & 7), the image that wgmma reads.
 * - `Q8_0`, `Q4_0`, `Q4_1`: four records of 16 rows. A record holds the integers in the order of the tensor cores' fragments, then for
 *   each g below 8 the f16 scales of rows g (both blocks of 32 columns) and g + 8, then (Q4_1) the minimums likewise. Lane (g, j)
 *   has columns 8j to 8j + 7 of both blocks of rows g and g + 8: four words of eight nibbles (column 2i at bit 4i, column 2i + 1 at
 *   bit 16 + 4i), or for Q8_0 eight words of four bytes (columns 0, 2, 1, 3), of which a record holds the first block's
 *   four for all lanes, then the second's.
 *
 * The functions here are the reference of the packing kernels.
 *
 * @module
 */
import { DTYPE_LAYOUT } from "../dtype.ts";

/** Weight types that the GPU multiplies without expanding them first. */
export type CudaWeightType = "BF16" | "Q8_0" | "Q4_0" | "Q4_1";

/** Rows of a tile. */
export const TILE_ROWS = 64;
/** Columns of a tile. */
export const TILE_COLS = 64;

/** Stored bytes of one tile. */
export const TILE_BYTES: Readonly<Record<CudaWeightType, number>> = { BF16: 8192, Q8_0: 4352, Q4_0: 2304, Q4_1: 2560 };

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

/** Bytes of a tiled matrix. @throws {RangeError} when a size is no positive integer or no whole number of blocks. */
export function tiledBytes({ dtype, rows, cols }: CudaMatrixShape): number {
  const block = DTYPE_LAYOUT[dtype].elements;
  for (const [axis, size, unit] of [["R (rows)", rows, 1], ["K (cols)", cols, block]] as const) {
    if (!Number.isSafeInteger(size) || size < 1 || size % unit !== 0) {
      throw new RangeError(
        `Cannot lay out a ${dtype} matrix: axis ${axis} must be a positive multiple of ${unit}, got ${size}`,
      );
    }
  }
  return tilesOf(rows) * tilesOf(cols) * TILE_BYTES[dtype];
}

/** Tiles a row-major matrix of bf16 bits, [rows, cols]. @throws {RangeError} when the length does not fit. */
export function tileBf16(bits: Uint16Array, { rows, cols }: Omit<CudaMatrixShape, "dtype">): Uint8Array {
  if (bits.length !== rows * cols) {
    throw new RangeError(`Cannot tile a BF16 matrix: wanted ${rows} x ${cols} values, got ${bits.length}`);
  }
  const out = new Uint16Array(tiledBytes({ dtype: "BF16", rows, cols }) / 2);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const tile = Math.floor(r / TILE_ROWS) * tilesOf(cols) + Math.floor(c / TILE_COLS);
      const [row, col] = [r % TILE_ROWS, c % TILE_COLS];
      out[tile * TILE_BYTES.BF16 / 2 + row * TILE_COLS + ((col >> 3) ^ (row & 7)) * 8 + (col & 7)] = bits[r * cols + c];
    }
  }
  return new Uint8Array(out.buffer);
}

/** Tiles stored rows of a quantised type. @throws {RangeError} when the length does not fit. */
export function tilePacked(
  stored: Uint8Array,
  shape: CudaMatrixShape & { dtype: "Q8_0" | "Q4_0" | "Q4_1" },
): Uint8Array {
  const { dtype, rows, cols } = shape;
  const blockBytes = DTYPE_LAYOUT[dtype].bytes;
  const out = new Uint8Array(tiledBytes(shape));
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
    readonly dtype: "Q8_0" | "Q4_0" | "Q4_1";
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
