/**
 * Chooses creditors for a sequence that wants to borrow: few of them, the emptiest, in ranges that suit the merge tree.
 *
 * @module
 */
import type { ClusterView, MembersView, PlacementDraft, PlacementView } from "../types.ts";

/** Part of a member's segments that are in use, 0 to 1; 1 for an empty pool. */
export function memoryUse(members: MembersView, member: number): number {
  const total = members.totalSegments[member];
  return total > 0 ? (members.ownSegments[member] + members.lentSegments[member]) / total : 1;
}

/** Members that would lend something to the asking one, emptiest first, ties by what they lend. */
export function creditorsOf({ members, self }: ClusterView): number[] {
  const creditors: number[] = [];
  for (let i = 0; i < members.length; i++) {
    if (i !== self && members.usable[i] === 1 && members.lendableSegments[i] > 0) creditors.push(i);
  }
  return creditors.sort((a, b) =>
    memoryUse(members, a) - memoryUse(members, b) ||
    members.lendableSegments[b] - members.lendableSegments[a] || a - b
  );
}

/**
 * Puts all segments on as few members as can hold them, the emptiest that are few enough; writes nothing when they do not
 * fit. A member that runs requests and is still wholly empty (it may have just come) gets at most half of what it would
 * lend, unless that took one member more. Borders between members fall on multiples of the largest power of two they can,
 * so that each range is few nodes of the merge tree.
 */
export function placeAligned(request: PlacementView, cluster: ClusterView, out: PlacementDraft): void {
  const { members, segmentTokens } = cluster;
  const creditors = creditorsOf(cluster);
  const offers = (member: number): number => members.lendableSegments[member];
  const gentleOffers = (member: number): number => {
    const isNew = members.full[member] === 1 && members.ownSegments[member] + members.lentSegments[member] === 0;
    return isNew ? Math.ceil(offers(member) / 2) : offers(member);
  };
  const count = fewest(creditors.map(offers), request.segments);
  if (count === undefined) return;
  const offer = fewest(creditors.map(gentleOffers), request.segments) === count ? gentleOffers : offers;
  const chosen = emptiest(creditors, { segments: request.segments, count, offer });
  // The lowest segments that are still at home leave it; the ones below them left earlier.
  let start = Math.max(0, Math.ceil(request.tokens / segmentTokens) - request.localSegments - request.segments);
  let left = request.segments;
  let later = chosen.reduce((sum, member) => sum + offer(member), 0);
  for (const member of chosen) {
    later -= offer(member);
    const end = roundest(start + Math.max(1, left - later), start + Math.min(offer(member), left));
    out.put(member, end - start);
    left -= end - start;
    start = end;
    if (left === 0) return;
  }
}

/** Fewest offers that make up the sum; undefined when all of them do not. */
function fewest(offers: readonly number[], sum: number): number | undefined {
  let left = sum;
  let count = 0;
  for (const offer of offers.toSorted((a, b) => b - a)) {
    if (left <= 0) break;
    left -= offer;
    count++;
  }
  return left <= 0 ? count : undefined;
}

/** The first `count` members, in order, that together offer enough. */
function emptiest(
  creditors: readonly number[],
  { segments, count, offer }: {
    readonly segments: number;
    readonly count: number;
    readonly offer: (member: number) => number;
  },
): readonly number[] {
  const chosen: number[] = [];
  let left = segments;
  for (let i = 0; i < creditors.length && chosen.length < count; i++) {
    const rest = creditors.slice(i + 1).map(offer).sort((a, b) => b - a).slice(0, count - chosen.length - 1);
    const most = rest.reduce((sum, value) => sum + value, offer(creditors[i]));
    if (most < left) continue;
    chosen.push(creditors[i]);
    left -= offer(creditors[i]);
  }
  return chosen;
}

/** The number from `low` to `high` that is a multiple of the largest power of two; the highest of them. */
function roundest(low: number, high: number): number {
  let power = 1;
  while (Math.floor(high / (power * 2)) * power * 2 >= low) power *= 2;
  return Math.floor(high / power) * power;
}
