/**
 * What the attention of a pool is asked for, and how its partials are handed on: the same for every device.
 *
 * @module
 */
import { type AttentionPartial, segmentNodes } from "../../kernels/merge_partials/spec.ts";
import { type AttendRange, type KvLayout, type NodePartial, type NodeWork, SEGMENT_TOKENS } from "./device.ts";

/** Queries of one sequence and token ranges of it that they see whole. */
export interface RangesOfOne {
  /** Queries, [tokens, heads * headDim], rotated, not scaled. */
  readonly queries: Float32Array;
  /** Ids of the blocks, in order. */
  readonly blocks: ArrayLike<number>;
  /** How many of them are read. */
  readonly blockCount: number;
  /** Position of the first token of `blocks[0]`. */
  readonly start: number;
  /** Ranges of positions, [from, to). */
  readonly ranges: readonly { readonly from: number; readonly to: number }[];
}

/** Attends: one partial for each range of each sequence, in order. Views, valid until the next call. */
export type AttendRanges = (all: readonly RangesOfOne[]) => readonly AttentionPartial[];

/** See `KvStore.attendNodes`, of a pool with blocks of `blockTokens`. `work` has been checked. */
export function attendNodesWith(
  attend: AttendRanges,
  { work, blockTokens }: { readonly work: readonly NodeWork[]; readonly blockTokens: number },
): readonly (readonly NodePartial[])[] {
  const nodes = work.map(({ segments }) => segmentNodes(segments.from, segments.to));
  const partials = attend(work.map(({ queries, blocks, segments }, index) => ({
    queries,
    blocks,
    blockCount: (segments.to - segments.from) * (SEGMENT_TOKENS / blockTokens),
    start: segments.from * SEGMENT_TOKENS,
    ranges: nodes[index].map(({ first, segments }) => ({
      from: first * SEGMENT_TOKENS,
      to: (first + segments) * SEGMENT_TOKENS,
    })),
  })));
  let next = 0;
  return nodes.map((nodes) => nodes.map((node) => ({ node, ...partials[next++] })));
}

/** See `Device.attend`. `ranges` have been checked. */
export function attendRangesWith(
  attend: AttendRanges,
  { ranges, layout }: { readonly ranges: readonly AttendRange[]; readonly layout: KvLayout },
): AttentionPartial {
  const { heads, headDim, blockTokens } = layout;
  const partials = attend(ranges.map(({ query, blocks, start, length }) => ({
    queries: query,
    blocks,
    blockCount: Math.ceil(length / blockTokens),
    start,
    ranges: [{ from: start, to: start + length }],
  })));
  const o = new Float32Array(ranges.length * heads * headDim);
  const lse = new Float32Array(ranges.length * heads);
  for (const [index, partial] of partials.entries()) {
    o.set(partial.o, index * heads * headDim);
    lse.set(partial.lse, index * heads);
  }
  return { o, lse };
}
