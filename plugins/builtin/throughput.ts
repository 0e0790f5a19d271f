/**
 * The paper's performance model over a view: the throughput of members, and what a move does to a pair of them.
 *
 * A step of a member with batch b takes T(b, S) = W(b)/f(b) + S/g(S): `stepMs + (b - 1) * sequenceMs` and `attentionMs`
 * for each thousand tokens that are attended there. A home waits for its slowest creditor where that takes longer than its
 * own attention: remote attention is free as long as it hides behind the local one.
 *
 * @module
 */
import type { ClusterView, MembersView } from "../types.ts";

/** Counts of a view as they become when moves are carried out. */
export class ThroughputModel {
  readonly #members: MembersView;
  readonly #segmentTokens: number;
  readonly #remoteMs: number;
  readonly #free: Float64Array;
  readonly #lendable: Float64Array;
  /** Tokens attended on each member, whoever's they are. */
  readonly #tokens: Float64Array;
  /** Tokens of home h on member m: element `h * members.length + m`. */
  readonly #remote: Float64Array;
  /** Segments that a waiting request of each member will take, as far as the running ones tell. */
  readonly #footprint: Float64Array;

  /** Reads a view; `remoteMs` is what attending elsewhere adds to a step of a home, ms. */
  constructor(cluster: ClusterView, { remoteMs }: { readonly remoteMs: number }) {
    const { members, sequences, segmentTokens } = cluster;
    this.#members = members;
    this.#segmentTokens = segmentTokens;
    this.#remoteMs = remoteMs;
    const zeros = () => new Float64Array(members.length);
    this.#free = zeros().map((_, i) => {
      return Math.max(0, members.totalSegments[i] - members.ownSegments[i] - members.lentSegments[i]);
    });
    this.#lendable = Float64Array.from(members.lendableSegments);
    this.#tokens = zeros();
    this.#remote = new Float64Array(members.length ** 2);
    for (let s = 0; s < sequences.length; s++) {
      const home = sequences.home[s];
      let elsewhere = 0;
      for (let m = 0; m < members.length; m++) {
        if (m === home) continue;
        const tokens = sequences.segmentsOn[s * members.length + m] * segmentTokens;
        elsewhere += tokens;
        this.#tokens[m] += tokens;
        this.#remote[home * members.length + m] += tokens;
      }
      this.#tokens[home] += Math.max(0, sequences.tokens[s] - elsewhere);
    }
    this.#footprint = zeros().map((_, i) => footprintOf(cluster, i));
  }

  /** Segments that the member would lend after the moves so far. */
  lendable(member: number): number {
    return this.#lendable[member];
  }

  /** Part of the member's segments in use after the moves so far, 0 to 1; 1 for an empty pool. */
  use(member: number): number {
    const total = this.#members.totalSegments[member];
    return total > 0 ? 1 - this.#free[member] / total : 1;
  }

  /**
   * Tokens a second that the pair gains when `segments` segments of a home's sequence go to a creditor. NaN while the time
   * of a step is unknown.
   */
  gain(home: number, { to, segments }: { readonly to: number; readonly segments: number }): number {
    const before = this.#throughput(home, home) + this.#throughput(to, home);
    this.#shift(home, { to, segments });
    const after = this.#throughput(home, home) + this.#throughput(to, home);
    this.#shift(home, { to, segments: -segments });
    return after - before;
  }

  /** Carries a move out. */
  apply(home: number, { to, segments }: { readonly to: number; readonly segments: number }): void {
    this.#shift(home, { to, segments });
    this.#lendable[to] -= segments;
  }

  #shift(home: number, { to, segments }: { readonly to: number; readonly segments: number }): void {
    const tokens = segments * this.#segmentTokens;
    this.#free[home] += segments;
    this.#free[to] -= segments;
    this.#tokens[home] -= tokens;
    this.#tokens[to] += tokens;
    this.#remote[home * this.#members.length + to] += tokens;
  }

  /** Tokens a second, with as many waiting requests admitted as there is memory for. */
  #throughput(member: number, borrower: number): number {
    const { running, waiting, maxBatch, stepMs, sequenceMs } = this.#members;
    const admitted = Math.max(
      0,
      Math.min(
        waiting[member],
        maxBatch[member] - running[member],
        Math.floor(this.#free[member] / this.#footprint[member]),
      ),
    );
    const batch = running[member] + admitted;
    if (batch === 0) return 0;
    const further = batch > 1 ? (batch - 1) * sequenceMs[member] : 0;
    const tokens = this.#tokens[member] + admitted * this.#footprint[member] * this.#segmentTokens;
    const attendMs = this.#attendMs(member, { tokens, like: borrower });
    return 1000 * batch / (stepMs[member] + further + Math.max(attendMs, this.#waitMs(member)));
  }

  /** Time until the slowest creditor of a home has answered, ms. */
  #waitMs(home: number): number {
    const { length } = this.#members;
    let waitMs = 0;
    for (let m = 0; m < length; m++) {
      const tokens = this.#remote[home * length + m];
      if (tokens > 0) waitMs = Math.max(waitMs, this.#remoteMs + this.#attendMs(m, { tokens, like: home }));
    }
    return waitMs;
  }

  /** Time of attention, ms; a holder never times its own steps and counts as fast as the member it works for. */
  #attendMs(member: number, { tokens, like }: { readonly tokens: number; readonly like: number }): number {
    const { attentionMs } = this.#members;
    const perThousand = Number.isNaN(attentionMs[member]) ? attentionMs[like] : attentionMs[member];
    return perThousand * tokens / 1000;
  }
}

/** Mean segments of the member's sequences but the longest, else of the whole cluster's but the longest, else 1. */
function footprintOf({ sequences, segmentTokens }: ClusterView, member: number): number {
  let found: number | undefined;
  for (const wanted of [member, undefined]) {
    let sum = 0;
    let longest = 0;
    let count = 0;
    for (let s = 0; s < sequences.length; s++) {
      if (wanted !== undefined && sequences.home[s] !== wanted) continue;
      sum += sequences.tokens[s];
      longest = Math.max(longest, sequences.tokens[s]);
      count++;
    }
    if (count > 1) found ??= (sum - longest) / (count - 1) / segmentTokens;
  }
  return Math.max(1, Math.ceil(found ?? 1));
}
