/**
 * rope_append - from the product with the query, key and value weights to rotated queries and to keys and values in the pool.
 *
 * qkv [T, H + 2 G, D] bf16 or f32 (query heads, key heads, value heads), bias [H + 2 G, D] f32 or none -> q [T, H, D] bf16; keys and
 * values bf16, or e4m3 (e4m3.ts), in the paged pool (kv_copy/pool_layout.ts), token t in slot position[t] % 64 of block
 * table[sequence[t], floor(position[t] / 64)]. Queries and keys are rotated as spec.ts says, after the bias. Results are rounded
 * to nearest even; keys and values are held within the finite numbers of their type, as every pool stores them. Dimensions from D to the padded
 * width are written as 0. Nothing goes to the pool for a token of a negative sequence, of a block id outside of the pool or of a
 * position beyond the table.
 *
 * Needs: 2 P <= D; at most 65,535 tokens; tokens that share a slot of a block do not occur.
 *
 * Roofline: bytes = 2 (2 or 3) T (H + 2 G) D; for one token the latency of table, block id and one write.
 *
 * Schedule: rope_append.cu; cosines and sines are those of rope_table.cu.
 *
 * Test: rope_cuda_test.ts.
 *
 * @module
 */
import { Axes } from "../axes.ts";

/** Heads of tokens and where their keys and values belong. */
export interface RopeAppendInput {
  /** Heads, [T, H + 2 G, D], values of the product's type. */
  readonly qkv: Float32Array;
  /** Added to the heads of each token, [H + 2 G, D]. */
  readonly bias?: Float32Array;
  /** H, query heads. */
  readonly heads: number;
  /** G, key and value heads. */
  readonly kvHeads: number;
  /** D, width of a head. */
  readonly headDim: number;
  /** Absolute position of each token, [T]. */
  readonly positions: readonly number[];
  /** Row of `tables` of each token, [T]. */
  readonly sequences: readonly number[];
  /** Block ids, [S, B]. */
  readonly tables: Int32Array;
  /** B, width of `tables`. */
  readonly maxBlocks: number;
  /** Radians per token of each pair, [P]. */
  readonly inverseFrequencies: Float64Array;
  /** Which values form a pair: (2i, 2i + 1) or (i, i + P). */
  readonly pairing: "adjacent" | "halves";
  /** Factor on cosine and sine. @default {1} */
  readonly magnitude?: number;
}

/** Checks the arguments. @throws {RangeError} when an axis does not match. */
export function checkRopeAppend(input: RopeAppendInput): void {
  const { qkv, bias, heads, kvHeads, headDim, positions, sequences, tables, maxBlocks } = input;
  const axes = new Axes("append", { T: positions.length, R: heads + 2 * kvHeads, D: headDim, B: maxBlocks });
  axes.match("qkv", qkv.length, ["T", "R", "D"]);
  axes.match("sequences", sequences.length, ["T"]);
  axes.match("tables", tables.length, ["S", "B"]);
  if (bias !== undefined) axes.match("bias", bias.length, ["R", "D"]);
  if (2 * input.inverseFrequencies.length > headDim) {
    throw new RangeError(
      `Cannot append: axis P must be at most D / 2 = ${headDim / 2}, got ${input.inverseFrequencies.length}`,
    );
  }
}

/**
 * Tolerances against the f64 reference before rounding to bf16: `relative` is half a unit in the last of 8 places, 2^-8 (2^-4
 * in an fp8 pool, whose numbers have 4 places); `absolute`, per unit of |a| + |b| of the pair and magnitude, the rotation in
 * f32 as in spec.ts.
 */
export const APPEND_TOLERANCE = { relative: 2 ** -8, absolute: 3e-7 } as const;
