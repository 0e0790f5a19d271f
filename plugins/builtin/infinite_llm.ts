/**
 * The greedy policy of the Infinite-LLM paper (section 5): members with a small batch and little memory left put parts of
 * their longest request on others, so that more requests run; the default policy, and what stands in for one that fails.
 *
 * @module
 */
import type { ClusterView, EvictionView, MemoryPlugin } from "../types.ts";
import { placeAligned } from "./placement.ts";
import { ThroughputModel } from "./throughput.ts";

/** Options of the policy. */
export interface InfiniteLlmConfig {
  /** A debtor runs fewer sequences than this part of its largest batch. @default {0.5} */
  readonly debtorBatch: number;
  /** A debtor has at least this part of its memory in use; less than 1, so that memory moves before it is full. @default {0.7} */
  readonly debtorUse: number;
  /** A creditor has less than this part of its memory in use. @default {0.7} */
  readonly creditorUse: number;
  /** Moves are worth more than this gain over the pair, tokens a second. @default {0} */
  readonly minGain: number;
  /** What attention elsewhere takes besides the attention itself, ms a step. @default {0} */
  readonly remoteMs: number;
  /** Most moves of one call. @default {16} */
  readonly maxMoves: number;
}

/** Options when none are given. */
export const INFINITE_LLM_DEFAULTS: InfiniteLlmConfig = Object.freeze({
  debtorBatch: 0.5,
  debtorUse: 0.7,
  creditorUse: 0.7,
  minGain: 0,
  remoteMs: 0,
  maxMoves: 16,
});

const PART = { type: "number", minimum: 0, maximum: 1 };

/**
 * Places on few, empty creditors in aligned ranges; moves by the paper's greedy search; gives up segments that the fewest
 * sequences share, of the shortest sequences, from the end, so that what remains elsewhere stays in one piece.
 */
export const infiniteLlm: MemoryPlugin<InfiniteLlmConfig, InfiniteLlmConfig> = {
  api: 1,
  kind: "memory",
  name: "infinite-llm",
  version: "1.0.0",
  configSchema: {
    type: "object",
    properties: {
      debtorBatch: { ...PART, default: INFINITE_LLM_DEFAULTS.debtorBatch },
      debtorUse: { ...PART, default: INFINITE_LLM_DEFAULTS.debtorUse },
      creditorUse: { ...PART, default: INFINITE_LLM_DEFAULTS.creditorUse },
      minGain: { type: "number", minimum: 0, default: INFINITE_LLM_DEFAULTS.minGain },
      remoteMs: { type: "number", minimum: 0, default: INFINITE_LLM_DEFAULTS.remoteMs },
      maxMoves: { type: "integer", minimum: 0, default: INFINITE_LLM_DEFAULTS.maxMoves },
    },
    additionalProperties: false,
  },
  create: ({ config }) => config,
  place: (_config, request, cluster, out) => placeAligned(request, cluster, out),
  move(config, cluster, out) {
    const search = new GreedySearch(cluster, config);
    for (let count = 0; count < config.maxMoves; count++) {
      const found = search.next();
      if (found === undefined) return;
      const { sequence, ...move } = found;
      out.move(sequence, move);
    }
  },
  evict(_config, view, out) {
    givingOrder(view).forEach((candidate, place) => out[candidate] = place);
  },
};

export default infiniteLlm;

/** A move that gains. */
interface Gain {
  readonly sequence: number;
  readonly from: number;
  readonly to: number;
  readonly segments: number;
  readonly predictedGain: number;
}

/** The paper's search: one move after the other, each on what the ones before leave. */
class GreedySearch {
  readonly #cluster: ClusterView;
  readonly #config: InfiniteLlmConfig;
  readonly #model: ThroughputModel;
  readonly #local: Int32Array;
  /** Sequence and creditor of the moves found so far. */
  readonly #done = new Set<string>();

  constructor(cluster: ClusterView, config: InfiniteLlmConfig) {
    this.#cluster = cluster;
    this.#config = config;
    this.#model = new ThroughputModel(cluster, config);
    this.#local = cluster.sequences.localSegments.slice(0, cluster.sequences.length);
  }

  /** Carries the best move of the first pair that gains out on the model; undefined when no pair gains. */
  next(): Gain | undefined {
    const creditors = this.#creditors();
    for (const from of this.#debtors()) {
      const sequence = this.#longest(from);
      if (sequence === undefined) continue;
      for (const to of creditors) {
        if (to === from || this.#done.has(`${sequence} ${to}`)) continue;
        const best = this.#bestCount(from, { sequence, to });
        if (best === undefined) continue;
        this.#model.apply(from, best);
        this.#local[sequence] -= best.segments;
        this.#done.add(`${sequence} ${to}`);
        return best;
      }
    }
    return undefined;
  }

  /** Members with a small batch and much of their memory in use, smallest batch first. */
  #debtors(): readonly number[] {
    const { members } = this.#cluster;
    const batch = (i: number): number => members.running[i] / Math.max(1, members.maxBatch[i]);
    return this.#usable()
      .filter((i) => members.full[i] === 1 && batch(i) < this.#config.debtorBatch)
      .filter((i) => this.#model.use(i) >= this.#config.debtorUse)
      .sort((a, b) => batch(a) - batch(b) || a - b);
  }

  /** Members with little of their memory in use, emptiest first. */
  #creditors(): readonly number[] {
    const model = this.#model;
    return this.#usable()
      .filter((i) => model.use(i) < this.#config.creditorUse && model.lendable(i) > 0)
      .sort((a, b) => model.use(a) - model.use(b) || model.lendable(b) - model.lendable(a) || a - b);
  }

  #usable(): number[] {
    const { usable, length } = this.#cluster.members;
    return Array.from({ length }, (_, i) => i).filter((i) => usable[i] === 1);
  }

  /** The debtor's longest sequence that may be moved and has more than its last segment at home. */
  #longest(debtor: number): number | undefined {
    const { home, pinned, tokens, length } = this.#cluster.sequences;
    let longest: number | undefined;
    for (let s = 0; s < length; s++) {
      if (home[s] !== debtor || pinned[s] === 1 || this.#local[s] < 2) continue;
      if (longest === undefined || tokens[s] > tokens[longest]) longest = s;
    }
    return longest;
  }

  /** The number of segments with the largest gain among {@linkcode candidateCounts}. */
  #bestCount(from: number, { sequence, to }: { readonly sequence: number; readonly to: number }): Gain | undefined {
    const most = Math.min(this.#local[sequence] - 1, this.#model.lendable(to));
    let best: Gain | undefined;
    for (const segments of candidateCounts(most)) {
      const predictedGain = this.#model.gain(from, { to, segments });
      if (predictedGain > (best?.predictedGain ?? this.#config.minGain)) {
        best = { sequence, from, to, segments, predictedGain };
      }
    }
    return best;
  }
}

/** Powers of two, three times those, and the most there can be: 1, 2, 3, 4, 6, 8, 12, … */
function candidateCounts(most: number): readonly number[] {
  const counts: number[] = [];
  for (let power = 1; power < most; power *= 2) {
    counts.push(power);
    if (power > 1 && power * 1.5 < most) counts.push(power * 1.5);
  }
  return most > 0 ? [...counts, most] : counts;
}

/** Candidates in the order in which they are given up. */
function givingOrder({ length, shared, tokens, segment }: EvictionView): readonly number[] {
  return Array.from({ length }, (_, i) => i).sort((a, b) =>
    shared[a] - shared[b] || tokens[a] - tokens[b] || segment[b] - segment[a] || a - b
  );
}
