/**
 * What memory and scheduler policies see of the cluster.
 *
 * @module
 */
import type { ClusterSequencesView, ClusterView, MembersView } from "../../plugins/types.ts";
import { stepLine } from "../performance/step_line.ts";
import { formatDifference } from "../protocol/hello_checks.ts";
import type { KvFormat } from "../protocol/member.ts";
import type { MemberStatus, PlacementEntry } from "../protocol/messages.ts";

/** What is known of the cluster. */
export interface ClusterKnowledge {
  /** The directory. */
  readonly members: readonly MemberStatus[];
  /** The request placement map, or the part of it that is known. @default {nothing} */
  readonly placements?: readonly PlacementEntry[];
  /** Tokens of one segment. */
  readonly segmentTokens: number;
  /** Format of the cluster's KV: members of another one are not usable. @default {that of the first member that has one} */
  readonly format?: KvFormat;
  /** Name of the member that asks; absent for the gManager. */
  readonly self?: string;
}

/** A view, and what policies do not see: the names behind its indices, and what newcomers hold back for the moment. */
export interface NamedClusterView extends ClusterView {
  /** Free segments that each member will lend when it may fill on. */
  readonly fillingSegments: Int32Array;
  /** Name of each sequence of the view, `HOME/HANDLE`. */
  readonly sequenceNames: readonly string[];
}

/**
 * The view of what is known. Blocks become whole segments, each count rounded to the safe side. Quarantined memory counts as
 * lent, so that total - own - lent is what is free. Managers without memory are left out, and so are sequences whose home is
 * not in the directory.
 */
export function clusterView(
  { members, placements = [], segmentTokens, format, self }: ClusterKnowledge,
): NamedClusterView {
  const listed = members.filter(({ card }) => card.role !== "manager");
  const shape = {
    segmentTokens,
    format: format ?? listed.find(({ card }) => card.format !== undefined)?.card.format,
  };
  const view = membersView(listed, shape);
  const { names, sequences } = sequencesView(placements, view);
  return {
    members: view,
    sequences,
    self: self === undefined ? -1 : view.name.indexOf(self),
    segmentTokens,
    fillingSegments: Int32Array.from(
      listed,
      ({ blocks }) => Math.floor((blocks.filling ?? 0) / segmentBlocksOf(shape)),
    ),
    sequenceNames: names,
  };
}

/** Name of a sequence's home. */
export function homeOf(sequence: string): string {
  return sequence.slice(0, sequence.indexOf("/"));
}

function membersView(
  members: readonly MemberStatus[],
  { segmentTokens, format }: Pick<ClusterKnowledge, "segmentTokens" | "format">,
): MembersView {
  const segmentBlocks = segmentBlocksOf({ segmentTokens, format });
  const down = (blocks: number): number => Math.floor(blocks / segmentBlocks);
  const up = (blocks: number): number => Math.ceil(blocks / segmentBlocks);
  const lines = members.map(({ load }) => stepLine(load.performance ?? { batch: [], batchMs: [] }));
  return {
    length: members.length,
    name: members.map(({ card }) => card.name),
    full: Uint8Array.from(members, ({ card }) => card.role === "full" ? 1 : 0),
    usable: Uint8Array.from(members, ({ state, card }) => state === "alive" && canHold(card.format, format) ? 1 : 0),
    totalSegments: Int32Array.from(members, ({ blocks }) => down(blocks.total)),
    lendableSegments: Int32Array.from(members, ({ blocks }) => down(blocks.lendable)),
    lentSegments: Int32Array.from(members, ({ blocks }) => up(blocks.lent + blocks.quarantined)),
    ownSegments: Int32Array.from(members, ({ blocks }) => up(blocks.own)),
    borrowedSegments: Int32Array.from(members, ({ blocks }) => up(blocks.borrowed)),
    running: Int32Array.from(members, ({ load }) => load.running),
    waiting: Int32Array.from(members, ({ load }) => load.waiting),
    maxBatch: Int32Array.from(members, ({ load }) => load.maxBatch),
    stepMs: Float64Array.from(lines, ({ stepMs }) => stepMs),
    sequenceMs: Float64Array.from(lines, ({ sequenceMs }) => sequenceMs),
    attentionMs: Float64Array.from(members, ({ load }) => load.performance?.attentionMs ?? NaN),
  };
}

function sequencesView(
  placements: readonly PlacementEntry[],
  members: MembersView,
): { readonly names: readonly string[]; readonly sequences: ClusterSequencesView } {
  const indices = new Map(members.name.map((name, i) => [name, i]));
  const entries = Map.groupBy(
    placements.filter(({ sequence }) => indices.has(homeOf(sequence))),
    ({ sequence }) => sequence,
  );
  const names = [...entries.keys()];
  const home = Int32Array.from(names, (name) => indices.get(homeOf(name)) ?? 0);
  const segmentsOn = new Int32Array(names.length * members.length);
  [...entries.values()].forEach((places, s) => {
    for (const { member, ranges } of places) {
      const m = indices.get(member);
      if (m === undefined) continue;
      segmentsOn[s * members.length + m] += ranges.reduce((sum, { from, to }) => sum + to - from, 0);
    }
  });
  return {
    names,
    sequences: {
      length: names.length,
      home,
      tokens: Int32Array.from(entries.values(), (places) => Math.max(...places.map(({ length }) => length))),
      localSegments: home.map((member, s) => segmentsOn[s * members.length + member]),
      pinned: Uint8Array.from(entries.values(), (places) => places.some(({ pinned }) => pinned) ? 1 : 0),
      segmentsOn,
    },
  };
}

/** Blocks of a segment. Without a format nobody has KV yet, and blocks have no size. */
function segmentBlocksOf({ segmentTokens, format }: Pick<ClusterKnowledge, "segmentTokens" | "format">): number {
  return format === undefined ? Infinity : segmentTokens / format.blockTokens;
}

/** Whether KV of the cluster can lie on a member; one without a format takes any. */
function canHold(own: KvFormat | undefined, cluster: KvFormat | undefined): boolean {
  return own === undefined || cluster === undefined || formatDifference(cluster, own) === undefined;
}
