/**
 * Members as the tests of the gManager make them up.
 *
 * @module
 */
import type { MemberIdentity } from "../protocol/member.ts";
import type { PlacementEntry } from "../protocol/messages.ts";
import type { MemberSnapshot } from "./heartbeat_writer.ts";

/** One run of a member. */
export function identity(name: string, run: number): MemberIdentity {
  return { name, incarnation: run.toString(16).padStart(32, "0") };
}

/** A member with 100 blocks that does nothing, but for what is given. */
export function snapshot(member: MemberIdentity, given: Partial<MemberSnapshot> = {}): MemberSnapshot {
  return {
    card: {
      ...member,
      role: "full",
      clusterUrl: "http://127.0.0.1:1",
      publicUrl: "",
      pid: 1,
      protocol: 1,
      pluginApi: 1,
      kernelDigest: "k",
    },
    blocks: { total: 100, free: 60, own: 20, lent: 20, quarantined: 0, borrowed: 0, lendable: 40 },
    load: { running: 1, waiting: 0, maxBatch: 8, tokensPerSecond: 5, counters: {} },
    entries: [],
    leases: [],
    moves: [],
    leaving: false,
    ...given,
  };
}

/** An entry of the placement map. */
export function entry(
  home: string,
  given: Partial<PlacementEntry> & { readonly handle?: number } = {},
): PlacementEntry {
  const { handle = 1, member = home, ...rest } = given;
  return {
    sequence: `${home}/${handle}`,
    member,
    blocks: 4,
    local: member === home,
    length: 64,
    ranges: [{ from: 0, to: 2, sinceMs: 0 }],
    pinned: false,
    ...rest,
  };
}
