/**
 * attend_partial - attention of query tokens over one token range of one sequence, as a partial result.
 *
 * s_i = q . k_i / sqrt(D), m = max s_i, l = sum exp(s_i - m), o = sum exp(s_i - m) v_i / l, lse = m + ln l.
 *
 * q [T, H, D], k and v [L, G, D], all f32 -> o [T, H, D], lse [T, H], f32, natural logarithm. Query head h reads KV head
 * floor(h / (H / G)). Token i of the range has the absolute position `start + i`; query t attends to positions up to
 * `firstPosition + t`, or to all when no position is given. Nothing to attend to gives o = 0 and lse = -Infinity. Keys and
 * values are stored as f32, f16, bf16 or, by GPUs, fp8 (e4m3.ts), rounded to nearest even and clamped to the largest finite
 * value.
 *
 * Needs: H a multiple of G; D at most 256; `start` a multiple of 8. Scores must be finite: NaN or +Infinity in a query or a
 * key shows as NaN in its row.
 *
 * Roofline: bytes = 2 * L * G * D * element size; flops = 4 * T * L * H * D. One query token is bound by memory from H / G = 1 to
 * about 4; from two on, by the f32 multiply-add.
 *
 * Schedule (kernels/wasm/src/attention.rs): the sequence is cut at absolute positions into segments of 256 tokens, merged
 * in the fixed tree of merge_partials; one query reads the paged pool directly, a tile of queries decodes a segment once.
 * Both schedules, any tiling and any number of threads give the same bits.
 *
 * Test: launch_test.ts. Time: `deno run -A kernels/attend_partial/launch_bench.ts`.
 *
 * @module
 */
import { Axes } from "../axes.ts";
import type { HostKvType } from "../dtype.ts";

/** Query tokens and the keys and values of a token range of one sequence. */
export interface AttendPartialInput {
  /** Queries, [T, H, D], rotated, not scaled. */
  readonly q: Float32Array;
  /** Keys of the range, [L, G, D], rotated. */
  readonly k: Float32Array;
  /** Values of the range, [L, G, D]. */
  readonly v: Float32Array;
  /** H, query heads. */
  readonly heads: number;
  /** G, key and value heads; divides `heads`. */
  readonly kvHeads: number;
  /** D, at most 256. */
  readonly headDim: number;
  /** Absolute position of the range's first token, a multiple of 8. @default {0} */
  readonly start?: number;
  /** Absolute position of the first query token, for causal attention; without it every query attends to the whole range. */
  readonly firstPosition?: number;
}

/** Largest head dimension of the kernels. */
export const MAX_HEAD_DIM = 256;

/** Number of a KV type in the kernel module. */
export const KV_CODE: Readonly<Record<HostKvType, number>> = { f32: 0, f16: 1, bf16: 2 };

/** Sizes of a call. */
export interface AttendSizes {
  /** T, query tokens. */
  readonly queries: number;
  /** L, tokens of the range. */
  readonly length: number;
  /** Query heads that share a KV head, H / G. */
  readonly group: number;
  /** Absolute position of the range's first token. */
  readonly start: number;
}

/**
 * Checks the arguments of a call.
 *
 * @throws {RangeError} when an axis does not match or a number is out of range; names the tensor and the axis.
 */
export function checkAttend(input: AttendPartialInput): AttendSizes {
  const { q, k, v, heads, kvHeads, headDim, start = 0, firstPosition = 0 } = input;
  const axes = new Axes("attend", { H: heads, G: kvHeads, D: headDim });
  axes.match("q", q.length, ["T", "H", "D"]);
  axes.match("k", k.length, ["L", "G", "D"]);
  axes.match("v", v.length, ["L", "G", "D"]);
  if (heads % kvHeads !== 0) {
    throw new RangeError(`Cannot attend: axis H (heads) must be a multiple of G = ${kvHeads} (kvHeads), got ${heads}`);
  }
  if (headDim > MAX_HEAD_DIM) {
    throw new RangeError(`Cannot attend: axis D (headDim) must be at most ${MAX_HEAD_DIM}, got ${headDim}`);
  }
  if (!Number.isSafeInteger(start) || start < 0 || start % 8 !== 0 || start + axes.size("L") >= 2 ** 31) {
    throw new RangeError(`Cannot attend: start must be a multiple of 8 and the range end below 2^31, got ${start}`);
  }
  if (!Number.isSafeInteger(firstPosition) || firstPosition < 0 || firstPosition + axes.size("T") >= 2 ** 31) {
    throw new RangeError(`Cannot attend: firstPosition must be an integer in 0 to 2^31, got ${firstPosition}`);
  }
  return { queries: axes.size("T"), length: axes.size("L"), group: heads / kvHeads, start };
}

/**
 * Tolerances against the f64 reference, which rounds keys and values as the pool does, so they are the same for every KV
 * type. A score sums D products in f32; its error, at most about D half ulps of the largest partial sum and in practice
 * their square root, moves lse by as much and a weight by as much relatively. Exponential and logarithm add 2 ulps.
 */
export const TOLERANCE = {
  /** Absolute, per unit of 4 + max |s|. */
  lse: 3e-7,
  /** Absolute, per unit of (4 + max |s|) * max |v|. */
  o: 3e-7,
} as const;

/** Seeds of test and bench data. */
export const SEEDS = { test: 21, bench: 22 } as const;
