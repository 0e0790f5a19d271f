/**
 * linear - product of a quantised weight matrix and input rows, the bulk of a transformer's arithmetic.
 *
 * out[t, r] = sum over k of w[r, k] * x[t, k], or out[t, r] += that.
 *
 * w [R, K] stored as the model file stores it (9 types), x [T, K] f32, out [T, R] f32. A weight of a quantised type is
 * d * q + m with d and m per block of 32 columns (16 for Q6_K). Inputs are taken as they are (`f32`) or, per block of 32,
 * as integers times a scale (`i8`; see {@linkcode IntegerInput}). Then a block is d * dx * sum(q * qx) + m * dx * sum(qx), its
 * sums exact integers.
 *
 * Needs: T, R, K >= 1; K a whole number of the type's stored blocks. An output depends on its weight row and its input row
 * alone: the same bits for every T, range of rows and number of threads.
 *
 * Roofline: bytes = stored weights (5 bits a weight for Q4_1, 8.5 for Q8_0); products = T * R * K. One token is bound by
 * memory; from about 4 tokens on the integer dot is the bound.
 *
 * Schedule (kernels/wasm/src/product.rs): rows interleaved in tiles of 8, so that lanes are rows and no sum crosses lanes;
 * one token multiplies 16 rows at a time straight from the stream of records; more go in groups of four, a tile of 8 rows
 * and a group at a time, by rotating the vector that holds 4 columns of the group's tokens.
 *
 * Test: launch_test.ts. Time: `deno run -A kernels/linear/launch_bench.ts`.
 *
 * @module
 */
import type { ActivationType, DType } from "../dtype.ts";

/**
 * Integers that inputs become, per block of 32 columns: `i8` round(x / d) with d = max |x| / 127; `hot` the same after groups
 * of 4 columns with outliers are taken out and given a scale of their own each (what rounding leaves of them stays in the
 * block); `i16` as `i8` with 32767. Q8_0 weights always take `i16`.
 */
export type IntegerInput = "i8" | "hot" | "i16";

/** Number of a weight type in the kernel module. */
export const DTYPE_CODE: Readonly<Record<DType, number>> = {
  F32: 0,
  F16: 1,
  BF16: 2,
  Q8_0: 3,
  Q4_0: 4,
  Q4_1: 5,
  Q4_K: 6,
  Q5_K: 7,
  Q6_K: 8,
};

/** Number of an input type in the kernel module. */
export const ACTIVATION_CODE: Readonly<Record<ActivationType, number>> = { i8: 0, f32: 1 };

/** How integer inputs are represented: see {@linkcode IntegerInput}. */
export const INPUT_CODE: Readonly<Record<IntegerInput, number>> = { i8: 0, hot: 1, i16: 2 };

/** Factor over the mean of the blocks' largest magnitudes above which a group of 4 columns is hot. */
export const HOT_FACTOR = 2;

/** Rows of a tile: row ranges of a product start at a multiple of it. */
export const ROW_TILE = 8;

/** Seeds of test and bench data. */
export const SEEDS = { test: 20240617, bench: 7 } as const;

/**
 * Largest |out - reference| of a product on the GPU before the output is rounded, as a share of sum over k of
 * (|d * q| + |m|) * |x|. Both sides take the same inputs, rounded to bf16.
 *
 * Products of bf16 are exact in f32; the tensor cores add 16 of them at a time and cut, not round, what lies below the largest
 * one's 24 bits. Q4_0 and Q4_1 add numbers up to 143 in place of q and take 136 (128) times the block's sum of x off again,
 * so their errors are up to 9 times as large.
 */
export const CUDA_TOLERANCE = { BF16: 4e-6, Q8_0: 4e-6, Q4_0: 2e-5, Q4_1: 2e-5 } as const;

/**
 * Largest |out - reference| allowed, as a share of sum over k of (|d * q| + |m|) * |x|.
 *
 * Both sides take the same (quantised) inputs, the reference sums in f64. Sums in f32 of up to 64 blocks with two
 * roundings each, plus one rounding of the scale and one of the dequantised weight, stay below 140 * 2^-24 in the worst
 * case; errors of both signs keep them near the square root of that.
 */
export const TOLERANCE = 2e-6;
