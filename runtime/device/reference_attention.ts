/**
 * Attention of the reference device: f64 within a segment and within a merge, every result rounded to f32.
 *
 * The rounding makes a partial that travelled as f32 the very value that its home would have computed, so the reference
 * gives the same bits for any spread of a sequence too.
 *
 * @module
 */
import { SEGMENT_TOKENS } from "../../kernels/merge_partials/spec.ts";

/** Partial of one query head; values are f32. */
export interface HeadPartial {
  /** [headDim] */
  readonly o: Float32Array;
  /** -Infinity where nothing was attended to. */
  readonly lse: number;
}

/** Keys and values of one head over a list of tokens. */
export interface HeadTokens {
  /** Where they are stored. */
  readonly pool: Float32Array;
  /** For each token, the index of its rotated key, [headDim], right behind which its value lies. */
  readonly slots: readonly number[];
}

/** A node of the merge tree by its first segment and its segments. */
export type NodeLookup = (first: number, segments: number) => HeadPartial | undefined;

/** Softmax attention of one query head to the tokens of one segment. */
export function attendSegment(query: ArrayLike<number>, { pool, slots }: HeadTokens): HeadPartial {
  const dims = query.length;
  if (slots.length === 0) return { o: new Float32Array(dims), lse: -Infinity };
  const scores = slots.map((key) => {
    let sum = 0;
    for (let d = 0; d < dims; d++) sum += query[d] * pool[key + d];
    return sum / Math.sqrt(dims);
  });
  const most = scores.reduce((a, b) => Math.max(a, b));
  const weights = scores.map((score) => Math.exp(score - most));
  const total = weights.reduce((a, b) => a + b);
  const o = new Float64Array(dims);
  weights.forEach((weight, i) => {
    const share = weight / total;
    const value = slots[i] + dims;
    for (let d = 0; d < dims; d++) o[d] += share * pool[value + d];
  });
  return { o: Float32Array.from(o), lse: Math.fround(most + Math.log(total)) };
}

function merge(a: HeadPartial, b: HeadPartial): HeadPartial {
  if (b.lse === -Infinity) return a;
  if (a.lse === -Infinity) return b;
  const most = Math.max(a.lse, b.lse);
  const lse = most + Math.log(Math.exp(a.lse - most) + Math.exp(b.lse - most));
  const [left, right] = [Math.exp(a.lse - lse), Math.exp(b.lse - lse)];
  return { o: a.o.map((x, d) => x * left + b.o[d] * right), lse: Math.fround(lse) };
}

/** What a tree is made of. */
export interface TreeParts {
  /** Partial of one segment. */
  readonly leaf: (segment: number) => HeadPartial;
  /** Nodes that are known without their segments. @default {none} */
  readonly known?: NodeLookup;
  /** First and one past the last segment; others are empty. */
  readonly from: number;
  /** See {@linkcode from}. */
  readonly to: number;
  /** Values of o. */
  readonly width: number;
}

/** Partial of the tree's node over `segments` segments, a power of two, from `first` on. */
export function mergeNode(first: number, segments: number, parts: TreeParts): HeadPartial {
  const known = parts.known?.(first, segments);
  if (known !== undefined) return known;
  if (first + segments <= parts.from || first >= parts.to) {
    return { o: new Float32Array(parts.width), lse: -Infinity };
  }
  if (segments === 1) return parts.leaf(first);
  const half = segments / 2;
  return merge(mergeNode(first, half, parts), mergeNode(first + half, half, parts));
}

/** Partial of the whole tree. */
export function mergeTree(parts: TreeParts): HeadPartial {
  let segments = 1;
  while (segments < parts.to) segments *= 2;
  return mergeNode(0, segments, parts);
}

/** Segments that hold the first `tokens` tokens of a sequence. */
export function segmentsOf(tokens: number): number {
  return Math.ceil(tokens / SEGMENT_TOKENS);
}
