/**
 * Directories and placement maps for tests.
 *
 * @module
 */
import type { KvFormat } from "../protocol/member.ts";
import type { BlockReport, LoadReport, MemberStatus, PlacementEntry } from "../protocol/messages.ts";

/** A format of 4 blocks a segment. */
export const FORMAT: KvFormat = {
  modelDigest: "model",
  kvType: "f16",
  layout: "test",
  layers: 2,
  heads: 4,
  kvHeads: 2,
  headDim: 8,
  blockTokens: 16,
  segmentTokens: 64,
  blockBytes: 1024,
};

/** A member that is alive, idle and has 40 free blocks that it would lend, but for what is given. */
export function statusOf(name: string, given: {
  readonly role?: MemberStatus["card"]["role"];
  readonly state?: MemberStatus["state"];
  readonly blocks?: Partial<BlockReport>;
  readonly load?: Partial<LoadReport>;
  readonly format?: KvFormat | "none";
} = {}): MemberStatus {
  const { role = "full", state = "alive", format = FORMAT } = given;
  return {
    card: {
      name,
      incarnation: "0".repeat(32),
      role,
      clusterUrl: `http://${name}:1`,
      publicUrl: "",
      pid: 1,
      protocol: 1,
      pluginApi: 1,
      kernelDigest: "",
      ...(format === "none" ? {} : { format }),
    },
    blocks: { total: 40, free: 40, own: 0, lent: 0, quarantined: 0, borrowed: 0, lendable: 40, ...given.blocks },
    load: { running: 0, waiting: 0, maxBatch: 8, tokensPerSecond: 0, counters: {}, ...given.load },
    silentMs: 0,
    state,
  };
}

/** An entry of `to - from` segments of a sequence on a member. */
export function entryOf(sequence: string, member: string, given: {
  readonly from: number;
  readonly to: number;
  readonly length?: number;
  readonly pinned?: boolean;
}): PlacementEntry {
  const { from, to, length = to * 64, pinned = false } = given;
  return {
    sequence,
    member,
    blocks: (to - from) * 4,
    local: sequence.startsWith(`${member}/`),
    length,
    ranges: [{ from, to, sinceMs: 0 }],
    pinned,
  };
}
