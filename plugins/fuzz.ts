/**
 * Random but consistent views, the same for the same seed.
 *
 * @module
 */
import type {
  ClusterView,
  EngineEvent,
  EvictionView,
  InstanceView,
  PlacementView,
  QueueView,
  RequestView,
  StepView,
} from "./types.ts";

/** A small seeded random source (SplitMix32). */
export class SeededRandom {
  #state: number;

  /** Makes one from an integer. */
  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** Uniform in [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x9e3779b9) | 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 0x100000000;
  }

  /** Integer from `low` to `high`, both included. */
  integer(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1));
  }

  /** One of the items. */
  pick<T>(items: readonly T[]): T {
    return items[this.integer(0, items.length - 1)];
  }
}

const LENGTHS = [1, 2, 3, 10, 512];
const TOKENS = [1, 7, 16, 500, 131_072];
const PRIORITIES = [0, 0, 1, -1, 3.5, -1e9, 1e9];

/** Makes views for one seed. */
export class ViewFuzzer {
  readonly #random: SeededRandom;

  /** Makes one. */
  constructor(random: SeededRandom) {
    this.#random = random;
  }

  /** A request. */
  request(): RequestView {
    const random = this.#random;
    return {
      id: `request-${random.integer(0, 1e6)}`,
      promptTokens: random.pick(TOKENS),
      maxTokens: random.pick([0, ...TOKENS]),
      priority: random.pick(PRIORITIES),
      tenant: random.pick(["", "a", "a tenant of unusual name ☃"]),
    };
  }

  /** An instance, idle to overloaded. */
  instance(): InstanceView {
    const random = this.#random;
    const totalBlocks = random.pick([1, 64, 8192]);
    return {
      waiting: random.pick([0, 1, 512]),
      running: random.pick([0, 1, 64]),
      totalBlocks,
      availableBlocks: random.integer(0, totalBlocks),
      blockTokens: random.pick([1, 16, 256]),
    };
  }

  /** A queue of sequences, running ones first; times are up to `nowMs`. */
  queue(nowMs: number, blockTokens = 16): QueueView {
    const random = this.#random;
    const length = random.pick(LENGTHS);
    const view = {
      length,
      id: new Int32Array(length),
      promptTokens: new Int32Array(length),
      pendingTokens: new Int32Array(length),
      generatedTokens: new Int32Array(length),
      maxTokens: new Int32Array(length),
      priority: new Float64Array(length),
      arrivedMs: new Float64Array(length),
      blocks: new Int32Array(length),
      preemptions: new Int32Array(length),
      running: new Uint8Array(length),
    };
    const running = random.integer(0, length);
    const firstId = random.pick([0, 1000, 2 ** 31 - 600]);
    for (let i = 0; i < length; i++) {
      const isRunning = i < running;
      view.id[i] = firstId + i;
      view.promptTokens[i] = random.pick(TOKENS);
      view.maxTokens[i] = random.pick(TOKENS);
      view.preemptions[i] = random.pick([0, 0, 1, 9]);
      view.generatedTokens[i] = isRunning || view.preemptions[i] > 0 ? random.integer(0, view.maxTokens[i] - 1) : 0;
      const known = view.promptTokens[i] + view.generatedTokens[i];
      view.pendingTokens[i] = isRunning && random.next() < 0.7 && view.generatedTokens[i] > 0
        ? 0
        : isRunning
        ? random.integer(1, known)
        : known;
      view.priority[i] = random.pick(PRIORITIES);
      view.arrivedMs[i] = random.next() * nowMs;
      view.blocks[i] = isRunning ? Math.ceil(known / blockTokens) : 0;
      view.running[i] = isRunning ? 1 : 0;
    }
    return view;
  }

  /** A step in which at least one sequence can compute a token. */
  step(nowMs: number): StepView {
    const random = this.#random;
    const queue = this.queue(nowMs);
    const running = queue.running.reduce((sum, flag) => sum + flag, 0);
    const owned = queue.blocks.reduce((sum, blocks) => sum + blocks, 0);
    const needed = queue.promptTokens.reduce((most, tokens, i) => {
      return Math.max(most, Math.ceil((tokens + queue.generatedTokens[i] + 1) / 16));
    }, 0);
    const availableBlocks = running === 0 ? needed : random.pick([queue.length, needed + queue.length]);
    const maxSequences = random.pick([1, 4, 64]);
    return {
      queue,
      instance: {
        waiting: queue.length - running,
        running,
        totalBlocks: owned + availableBlocks,
        availableBlocks,
        blockTokens: 16,
      },
      tokenBudget: Math.max(maxSequences, random.pick([1, 64, 512])),
      maxSequences,
    };
  }

  /** Events about known and unknown sequences, in any order. */
  events(nowMs: number): EngineEvent[] {
    const random = this.#random;
    return Array.from({ length: random.pick([1, 3, 50]) }, (): EngineEvent => {
      const id = random.integer(0, 2 ** 31 - 1);
      const kind = random.pick(["queued", "started", "first-token", "preempted", "ended"] as const);
      return kind === "ended"
        ? { kind, id, atMs: nowMs, reason: random.pick(["stop", "length", "cancelled", "error"]) }
        : { kind, id, atMs: nowMs };
    });
  }

  /** A cluster of 1 to 12 members, the first of which runs requests and is asked, with its sequences. */
  cluster(): ClusterView {
    const random = this.#random;
    const length = random.pick([1, 2, 3, 5, 12]);
    const count = random.pick([0, 1, 3, 20]);
    const members = {
      length,
      name: Array.from({ length }, (_, i) => `member-${i}`),
      full: Uint8Array.from({ length }, (_, i) => i === 0 || random.next() < 0.6 ? 1 : 0),
      usable: Uint8Array.from({ length }, () => random.next() < 0.85 ? 1 : 0),
      totalSegments: new Int32Array(length),
      lendableSegments: new Int32Array(length),
      lentSegments: new Int32Array(length),
      ownSegments: new Int32Array(length),
      borrowedSegments: new Int32Array(length),
      running: new Int32Array(length),
      waiting: new Int32Array(length),
      maxBatch: new Int32Array(length),
      stepMs: new Float64Array(length).fill(NaN),
      sequenceMs: new Float64Array(length).fill(NaN),
      attentionMs: new Float64Array(length).fill(NaN),
    };
    const homes = [...members.full.keys()].filter((i) => members.full[i] === 1);
    const sequences = {
      length: count,
      home: Int32Array.from({ length: count }, () => random.pick(homes)),
      tokens: new Int32Array(count),
      localSegments: new Int32Array(count),
      pinned: Uint8Array.from({ length: count }, () => random.next() < 0.1 ? 1 : 0),
      segmentsOn: new Int32Array(count * length),
    };
    const segmentTokens = random.pick([16, 256]);
    for (let s = 0; s < count; s++) {
      const home = sequences.home[s];
      members.running[home]++;
      let segments = 0;
      for (let m = 0; m < length; m++) {
        const there = m === home ? random.pick([0, 1, 4, 60]) : random.pick([0, 0, 0, 1, 16]);
        sequences.segmentsOn[s * length + m] = there;
        segments += there;
        if (m === home) {
          sequences.localSegments[s] = there;
          members.ownSegments[m] += there;
        } else {
          members.lentSegments[m] += there;
          members.borrowedSegments[home] += there;
        }
      }
      sequences.tokens[s] = Math.max(1, segments * segmentTokens - random.integer(0, segmentTokens - 1));
    }
    for (let m = 0; m < length; m++) {
      const free = random.pick([0, 1, 7, 500]);
      members.totalSegments[m] = members.ownSegments[m] + members.lentSegments[m] + free;
      members.lendableSegments[m] = random.integer(0, free);
      if (members.full[m] === 0) continue;
      members.waiting[m] = random.pick([0, 0, 3, 500]);
      members.maxBatch[m] = members.running[m] + random.pick([1, 8, 64]);
      if (random.next() < 0.2) continue;
      members.stepMs[m] = random.pick([0.5, 20]);
      members.sequenceMs[m] = random.pick([0, 0.1, 15]);
      members.attentionMs[m] = random.pick([0, 0.01, 3]);
    }
    return { members, sequences, self: 0, segmentTokens };
  }

  /** A sequence of the asked member that wants to borrow what the others lend, less or more. */
  placement({ members, self, segmentTokens }: ClusterView): PlacementView {
    const random = this.#random;
    const offered = members.lendableSegments.reduce((sum, segments, i) => i === self ? sum : sum + segments, 0);
    const segments = Math.max(1, random.pick([1, 3, random.integer(0, offered), offered, offered + 1]));
    const localSegments = random.pick([0, 1, 20]);
    const tokens = (segments + localSegments + random.pick([0, 0, 9])) * segmentTokens;
    return { segments, tokens, maxTokens: tokens + random.pick([1, 1000]), localSegments };
  }

  /** Segments of which some are called back. */
  eviction(): EvictionView {
    const random = this.#random;
    const length = random.pick(LENGTHS);
    return {
      segments: random.integer(1, length + 1),
      length,
      tokens: Int32Array.from({ length }, () => random.pick(TOKENS)),
      segment: Int32Array.from({ length }, () => random.integer(0, 600)),
      shared: Int32Array.from({ length }, () => random.pick([1, 1, 2, 9])),
      ageMs: Float64Array.from({ length }, () => random.next() * 1e6),
    };
  }
}
