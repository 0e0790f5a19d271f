/**
 * Equal shares: every sequence lies on all members alike, as far as they lend.
 *
 * @module
 */
import type { ClusterView, MemoryPlugin } from "../types.ts";

/** Borrows the same from everybody, and moves what lies at home until its share there is no larger than elsewhere. */
export const spread: MemoryPlugin = {
  api: 1,
  kind: "memory",
  name: "spread",
  version: "1.0.0",
  create: () => undefined,
  place(_state, request, { members, self }, out) {
    const lenders = lendersBeside(self, members).filter((i) => members.lendableSegments[i] > 0);
    const offered = lenders.reduce((sum, i) => sum + members.lendableSegments[i], 0);
    if (offered < request.segments) return;
    const shares = new Map<number, number>();
    let left = request.segments;
    // Those that offer least first: what they cannot take is shared by the others.
    lenders.toSorted((a, b) => members.lendableSegments[a] - members.lendableSegments[b] || a - b).forEach((i, at) => {
      const share = Math.min(members.lendableSegments[i], Math.floor(left / (lenders.length - at)));
      shares.set(i, share);
      left -= share;
    });
    for (const i of lenders) {
      const share = shares.get(i) ?? 0;
      if (share > 0) out.put(i, share);
    }
  },
  move(_state, { members, sequences }, out) {
    const lendable = members.lendableSegments.slice();
    for (let s = 0; s < sequences.length; s++) {
      const home = sequences.home[s];
      if (sequences.pinned[s] === 1 || members.usable[home] !== 1) continue;
      const on = sequences.segmentsOn.subarray(s * members.length, (s + 1) * members.length);
      const lenders = lendersBeside(home, members);
      const target = Math.floor(on.reduce((sum, segments) => sum + segments, 0) / (lenders.length + 1));
      let spare = sequences.localSegments[s] - Math.max(1, target);
      for (const to of lenders) {
        const segments = Math.min(target - on[to], spare, lendable[to]);
        if (segments < 1) continue;
        out.move(s, { from: home, to, segments });
        spare -= segments;
        lendable[to] -= segments;
      }
    }
  },
};

export default spread;

/** Usable members but one. */
function lendersBeside(home: number, { length, usable }: ClusterView["members"]): readonly number[] {
  return Array.from({ length }, (_, i) => i).filter((i) => i !== home && usable[i] === 1);
}
