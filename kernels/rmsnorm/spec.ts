/**
 * rmsnorm - root mean square normalisation: y[t, n] = x[t, n] * w[n] / sqrt(mean over n of x[t, n]^2 + eps).
 *
 * x [T, N], w [N] f32 -> y [T, N] f32. A row depends on itself and w alone.
 *
 * Needs: N >= 1; eps >= 0.
 *
 * Roofline: bytes = 4 * (2 T + 1) * N; bound by the L1 cache: in a model it is under 1 % of a step.
 *
 * Schedule (kernels/wasm/src/norm.rs): 16 interleaved sums of squares, joined in a fixed tree. On CUDA (rmsnorm.cu) y is bf16, the
 * input of a product, and a launch may name the rows of x it wants; a row outside of x gives NaN.
 *
 * Test: launch_test.ts, rmsnorm_cuda_test.ts. Time: `deno run -A kernels/rmsnorm/launch_bench.ts`.
 *
 * @module
 */
import { Axes } from "../axes.ts";

/** Rows to normalise. */
export interface RmsnormInput {
  /** Rows, [T, N]. */
  readonly x: Float32Array;
  /** Weights, [N]. */
  readonly w: Float32Array;
  /** Added to the mean square. */
  readonly eps: number;
}

/**
 * Checks the arguments; returns T and N.
 *
 * @throws {RangeError} when an axis does not match or eps is negative.
 */
export function checkRmsnorm({ x, w, eps }: RmsnormInput): { readonly rows: number; readonly width: number } {
  const axes = new Axes("normalise", { N: w.length });
  axes.match("x", x.length, ["T", "N"]);
  if (!(eps >= 0)) throw new RangeError(`Cannot normalise: eps must be at least 0, got ${eps}`);
  return { rows: axes.size("T"), width: w.length };
}

/**
 * Relative tolerance against the f64 reference: N / 16 rounded additions of squares, in practice their square root, halved by
 * the root, and 3 more roundings.
 */
export const TOLERANCE = 6e-7;

/** Relative tolerance of a bf16 result: half a unit in the last of 8 places, 2^-8, and {@linkcode TOLERANCE} before it. */
export const TOLERANCE_BF16: number = 2 ** -8 + TOLERANCE;

/** Seeds of test and bench data. */
export const SEEDS = { test: 41, bench: 42 } as const;
