/**
 * Cluster views for tests.
 *
 * @module
 */
import type { ClusterView } from "./types.ts";

/** One member of a view; what is absent is 0, but a member is usable, has 100 segments, and lends all that is free. */
export interface MemberRow {
  /** Whether it runs no requests. */
  readonly holder?: boolean;
  /** Whether it may be given anything. */
  readonly usable?: boolean;
  /** Segments in its pool. */
  readonly total?: number;
  /** Segments it would lend. */
  readonly lendable?: number;
  /** Segments it has lent. */
  readonly lent?: number;
  /** Segments of its own sequences. */
  readonly own?: number;
  /** Sequences running. */
  readonly running?: number;
  /** Sequences waiting. */
  readonly waiting?: number;
  /** Most sequences at once. @default {8} */
  readonly maxBatch?: number;
  /** Step, further sequence, and a thousand tokens of attention, ms. @default {10, 1, 4} */
  readonly times?: readonly [number, number, number];
}

/** One sequence of a view. */
export interface SequenceRow {
  /** Index of its home. */
  readonly home: number;
  /** Segments on each member. */
  readonly on: readonly number[];
  /** Tokens. @default {as many as the segments hold} */
  readonly tokens?: number;
  /** Whether it is pinned. */
  readonly pinned?: boolean;
}

/** A view of the members and sequences, seen by member `self` (0 unless given); a segment is 100 tokens. */
export function clusterOf(
  members: readonly MemberRow[],
  { sequences = [], self = 0 }: { readonly sequences?: readonly SequenceRow[]; readonly self?: number } = {},
): ClusterView {
  const totalOf = ({ total = 100 }: MemberRow): number => total;
  const timesOf = ({ holder, times }: MemberRow): readonly number[] => times ?? (holder ? [NaN, NaN, NaN] : [10, 1, 4]);
  const sum = (counts: readonly number[]): number => counts.reduce((total, count) => total + count, 0);
  return {
    members: {
      length: members.length,
      name: members.map((_, i) => `m${i}`),
      full: Uint8Array.from(members, ({ holder }) => holder ? 0 : 1),
      usable: Uint8Array.from(members, ({ usable = true }) => usable ? 1 : 0),
      totalSegments: Int32Array.from(members, totalOf),
      lendableSegments: Int32Array.from(
        members,
        (row) => row.lendable ?? totalOf(row) - (row.own ?? 0) - (row.lent ?? 0),
      ),
      lentSegments: Int32Array.from(members, ({ lent = 0 }) => lent),
      ownSegments: Int32Array.from(members, ({ own = 0 }) => own),
      borrowedSegments: new Int32Array(members.length),
      running: Int32Array.from(members, ({ running = 0 }) => running),
      waiting: Int32Array.from(members, ({ waiting = 0 }) => waiting),
      maxBatch: Int32Array.from(members, ({ holder, maxBatch = 8 }) => holder ? 0 : maxBatch),
      stepMs: Float64Array.from(members, (row) => timesOf(row)[0]),
      sequenceMs: Float64Array.from(members, (row) => timesOf(row)[1]),
      attentionMs: Float64Array.from(members, (row) => timesOf(row)[2]),
    },
    sequences: {
      length: sequences.length,
      home: Int32Array.from(sequences, ({ home }) => home),
      tokens: Int32Array.from(sequences, ({ on, tokens }) => tokens ?? sum(on) * 100),
      localSegments: Int32Array.from(sequences, ({ home, on }) => on[home] ?? 0),
      pinned: Uint8Array.from(sequences, ({ pinned }) => pinned ? 1 : 0),
      segmentsOn: Int32Array.from(sequences.flatMap(({ on }) => members.map((_, i) => on[i] ?? 0))),
    },
    self,
    segmentTokens: 100,
  };
}
