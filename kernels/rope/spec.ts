/**
 * rope - rotary position embedding of query or key heads.
 *
 * Pair (a, b) of a head at position p becomes (a cos - b sin, b cos + a sin) * magnitude, angle = p * inverse frequency.
 *
 * x [T, H, D] f32 and positions [T] -> [T, H, D] f32. The first 2 P values of a head form P pairs, (2i, 2i + 1) or (i, i + P), with
 * inverse frequencies [P] f64; the others stay as they are. Angles, their reduction, cosine and sine are computed in f64 and
 * then rounded, so they are right to f32 at any position.
 *
 * Needs: 2 P <= D; positions below 2^32.
 *
 * Roofline: bytes = 8 * T * H * D from the caches; the table of cosines and sines costs 2 P f64 functions a token, shared by
 * all heads and layers.
 *
 * Schedule (kernels/wasm/src/rope.rs): 4 pairs at a time. On CUDA the table is rope_table.cu, once a step, and the rotation a part of
 * rope_append.cu, see append_spec.ts.
 *
 * Test: launch_test.ts, rope_cuda_test.ts. Time: `deno run -A kernels/rope/launch_bench.ts`.
 *
 * @module
 */
import { Axes } from "../axes.ts";

/** Heads to rotate. */
export interface RopeInput {
  /** Heads, [T, H, D]. */
  readonly x: Float32Array;
  /** Absolute position of each token, [T]. */
  readonly positions: readonly number[];
  /** D, width of a head. */
  readonly headDim: number;
  /** Radians per token of each pair, [P]. */
  readonly inverseFrequencies: Float64Array;
  /** Which values form a pair: (2i, 2i + 1) or (i, i + P). */
  readonly pairing: "adjacent" | "halves";
  /** Factor on cosine and sine, rounded to f32. @default {1} */
  readonly magnitude?: number;
}

/**
 * Checks the arguments; returns H.
 *
 * @throws {RangeError} when an axis does not match or a position is out of range.
 */
export function checkRope(input: RopeInput): { readonly heads: number } {
  const { x, positions, headDim, inverseFrequencies } = input;
  const axes = new Axes("rotate", { T: positions.length, D: headDim });
  axes.match("x", x.length, ["T", "H", "D"]);
  if (2 * inverseFrequencies.length > headDim) {
    throw new RangeError(
      `Cannot rotate: axis P of inverseFrequencies must be at most D / 2 = ${
        headDim / 2
      }, got ${inverseFrequencies.length}`,
    );
  }
  for (const position of positions) {
    if (!Number.isInteger(position) || position < 0 || position >= 2 ** 32) {
      throw new RangeError(`Cannot rotate: positions must be integers in 0 to 2^32 - 1, got ${position}`);
    }
  }
  return { heads: axes.size("H") };
}

/** Absolute tolerance per unit of |a| + |b| and magnitude: rounding of cosine and sine, of two products and a sum, in f32. */
export const TOLERANCE = 2e-7;

/** Seeds of test and bench data. */
export const SEEDS = { test: 51, bench: 52 } as const;
