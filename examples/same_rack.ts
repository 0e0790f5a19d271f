/**
 * An example of a memory policy: borrow from members of the same rack first. A member's rack is what its name says before the
 * first dot: `rack-1.host-7` stands in `rack-1`.
 *
 *     deno task start --cluster-listen 127.0.0.1:7600 --memory-policy ./examples/same_rack.ts
 *
 * @module
 */
import type { ClusterView, MemoryPlugin } from "@infinite-llm/runtime/plugin";

/** Options of the policy. */
export interface SameRackConfig {
  /** Most segments of one placement that may go to other racks. */
  readonly awaySegments: number;
}

/** Places in the own rack, the largest offers first; moves and evictions are left to the default policy. */
const sameRack: MemoryPlugin<SameRackConfig, SameRackConfig> = {
  api: 1,
  kind: "memory",
  name: "same-rack",
  version: "1.0.0",
  configSchema: {
    type: "object",
    properties: { awaySegments: { type: "integer", minimum: 0, default: 16 } },
    additionalProperties: false,
  },
  create: ({ config }) => config,
  place({ awaySegments }, request, cluster, out) {
    let left = request.segments;
    let away = awaySegments;
    const shares: (readonly [member: number, segments: number])[] = [];
    for (const { member, near, offer } of lenders(cluster)) {
      const segments = Math.min(left, offer, near ? left : away);
      if (segments < 1) continue;
      shares.push([member, segments]);
      left -= segments;
      if (!near) away -= segments;
    }
    // All or nothing: half a placement would be refused.
    if (left === 0) { for (const [member, segments] of shares) out.put(member, segments); }
  },
};

export default sameRack;

/** Usable members with something to lend, the own rack first, then the largest offer. */
function lenders({ members, self }: ClusterView) {
  const rack = rackOf(members.name[self]);
  return members.name.map((name, member) => ({
    member,
    near: rackOf(name) === rack,
    offer: members.usable[member] === 1 && member !== self ? members.lendableSegments[member] : 0,
  })).filter(({ offer }) => offer > 0).sort((a, b) => Number(b.near) - Number(a.near) || b.offer - a.offer);
}

function rackOf(name: string): string {
  return name.split(".")[0];
}
