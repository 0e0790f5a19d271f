/**
 * Where a request runs when the policy does not say, and how scores become an order.
 *
 * @module
 */
import { PolicyFault } from "./error.ts";
import type { ClusterView, RequestView } from "./types.ts";

/**
 * Candidates, best first: those with free memory for the prompt and its first token go before the others, then the
 * fewest sequences (running and waiting) for the size of the batch, then the member that was asked, then the view's order.
 *
 * @param candidates Indices of members in the view.
 */
export function routeOrder(
  request: RequestView,
  cluster: ClusterView,
  candidates: readonly number[],
): readonly number[] {
  const { members, self } = cluster;
  const segments = Math.ceil((request.promptTokens + 1) / cluster.segmentTokens);
  const borrows = (i: number): number =>
    members.totalSegments[i] - members.ownSegments[i] - members.lentSegments[i] < segments ? 1 : 0;
  const load = (i: number): number => (members.running[i] + members.waiting[i]) / Math.max(1, members.maxBatch[i]);
  const distance = (i: number): number => i === self ? 0 : 1;
  return candidates.toSorted((a, b) =>
    borrows(a) - borrows(b) || load(a) - load(b) || distance(a) - distance(b) || a - b
  );
}

/**
 * Candidates by score, ties in the order of {@linkcode routeOrder}.
 *
 * @throws {PolicyFault} when there is not one score a member, or a candidate's is not finite.
 */
export function scoreOrder(
  scores: Float64Array,
  { cluster, order }: { readonly cluster: ClusterView; readonly order: readonly number[] },
): readonly number[] {
  const { length, name } = cluster.members;
  if (scores.length !== length) {
    throw new PolicyFault(`Cannot accept the scores: wanted ${length}, got an array of ${scores.length}`);
  }
  for (const i of order) {
    if (!Number.isFinite(scores[i])) {
      throw new PolicyFault(`Cannot accept the scores: wanted a finite score for member ${name[i]}, got ${scores[i]}`);
    }
  }
  return order.toSorted((a, b) => scores[a] - scores[b]);
}
