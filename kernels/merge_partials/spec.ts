/**
 * merge_partials - joins partial attention results over disjoint token ranges into the result over their union.
 *
 * merge(a, b): lse = ln(exp(lse_a) + exp(lse_b)), o = o_a * exp(lse_a - lse) + o_b * exp(lse_b - lse).
 *
 * o [R, D] f32 and lse [R] f32 (natural logarithm) per part -> o [R, D], lse [R]. R rows are independent queries. An empty part
 * has o = 0 and lse = -Infinity and is the identity: merging with it copies the other part exactly, merging only empty parts
 * gives an empty part, never NaN.
 *
 * Parts merge in the fixed binary tree over the segment index: node (k, i) covers segments [i * 2^k, (i + 1) * 2^k) of
 * {@linkcode SEGMENT_TOKENS} tokens; missing segments are empty. So the WASM kernel gives the same bits however a sequence was
 * spread, as long as every part is a whole node.
 *
 * Needs: at least one part; the same R and D in all; segment indices ascending.
 *
 * Roofline: bytes = 4 * (D + 1) * R * parts read; 3 flops a value: bound by memory, and small beside attention itself.
 *
 * Schedule (kernels/wasm/src/merge.rs): a stack of node results; two neighbours merge as soon as the next node meets them
 * higher up.
 *
 * Test: launch_test.ts. Time: `deno run -A kernels/merge_partials/launch_bench.ts`.
 *
 * @module
 */
import { Axes } from "../axes.ts";

/** Tokens of one segment, the unit of the merge tree. */
export const SEGMENT_TOKENS = 256;

/** A partial attention result of R rows (queries times heads). */
export interface AttentionPartial {
  /** Normalised weighted sums of values, [R, D]; 0 where nothing was attended to. */
  readonly o: Float32Array;
  /** Natural logarithm of the sum of exponentials of the scores, [R]; -Infinity where nothing was attended to. */
  readonly lse: Float32Array;
}

/** A node of the merge tree: segments `first` to `first + segments - 1`; `segments` is a power of two that divides `first`. */
export interface SegmentNode {
  /** Its first segment. */
  readonly first: number;
  /** Segments it covers. */
  readonly segments: number;
}

/**
 * The largest whole nodes that make up segments [from, to), in order: O(log(to - from)) of them. A holder of a range returns
 * one partial for each, and whoever asked finishes the tree.
 *
 * @throws {RangeError} when the bounds are not integers with 0 <= from <= to <= 2^32.
 */
export function segmentNodes(from: number, to: number): SegmentNode[] {
  if (!Number.isInteger(from) || !Number.isInteger(to) || from < 0 || to < from || to > 2 ** 32) {
    throw new RangeError(`Cannot cut segments into nodes: wanted 0 <= from <= to <= 2^32, got [${from}, ${to})`);
  }
  const nodes: SegmentNode[] = [];
  for (let first = from; first < to;) {
    let segments = 1;
    while (first % (2 * segments) === 0 && first + 2 * segments <= to) segments *= 2;
    nodes.push({ first, segments });
    first += segments;
  }
  return nodes;
}

/** Sizes of a merge. */
export interface MergeSizes {
  /** R, rows. */
  readonly rows: number;
  /** D, values of one row of o. */
  readonly width: number;
  /** First segment of every part. */
  readonly starts: readonly number[];
}

/**
 * Checks the arguments of a merge; `starts` are 0, 1, 2, ... by default.
 *
 * @throws {RangeError} when there is no part, an axis differs between parts, or `starts` does not ascend.
 */
export function checkMerge(parts: readonly AttentionPartial[], starts?: readonly number[]): MergeSizes {
  if (parts.length === 0) throw new RangeError("Cannot merge partials: wanted at least one part, got none");
  const axes = new Axes("merge partials", {});
  for (const [index, { o, lse }] of parts.entries()) {
    axes.match(`lse of part ${index}`, lse.length, ["R"]);
    axes.match(`o of part ${index}`, o.length, ["R", "D"]);
  }
  const order = starts ?? parts.map((_, index) => index);
  if (order.length !== parts.length) {
    throw new RangeError(
      `Cannot merge partials: wanted one start for each of ${parts.length} parts, got ${order.length}`,
    );
  }
  order.forEach((start, index) => {
    if (!Number.isInteger(start) || start < 0 || start >= 2 ** 32 || (index > 0 && start <= order[index - 1])) {
      throw new RangeError(
        `Cannot merge partials: starts must be ascending segment indices, got ${start} for part ${index}`,
      );
    }
  });
  return { rows: axes.size("R"), width: axes.size("D"), starts: order };
}

/**
 * Tolerances against the f64 reference. One merge rounds lse once (half an ulp of |lse|) and each weight in about 3 f32
 * operations; a difference of lse moves a weight by as much, relatively.
 */
export const TOLERANCE = {
  /** Absolute, per unit of max(1, |lse|) and level of the tree. */
  lse: 1.5e-7,
  /** Absolute, per unit of max(1, |lse|) * max |o| and level of the tree. */
  o: 4e-7,
} as const;

/** Seeds of test and bench data. */
export const SEEDS = { test: 31, bench: 32 } as const;
