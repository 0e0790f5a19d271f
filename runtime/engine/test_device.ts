/**
 * A device for tests: its logits are a pure function of the tokens it finds through the block table, so any mistake in
 * scheduling, block tables or sharing shows as a wrong token.
 *
 * @module
 */
import { type AttentionPartial, type SegmentNode, segmentNodes } from "../../kernels/merge_partials/spec.ts";
import { checkBatch, logitRows } from "../device/batch_check.ts";
import {
  type AttendRange,
  type Device,
  type DeviceInfo,
  type DeviceStep,
  type FollowingStep,
  type KvLayout,
  type NodePartial,
  type NodeWork,
  SEGMENT_TOKENS,
  type StepHints,
  type StepOutput,
  type StepSequence,
  type StepStop,
  TOP_CANDIDATES,
} from "../device/device.ts";
import type { ModelConfig } from "../model/model.ts";
import type { TokenTable } from "../text/codec.ts";

/** Sizes of a {@linkcode TestDevice}. */
export interface TestDeviceOptions {
  readonly blocks: number;
  readonly blockTokens?: number;
  readonly maxStepTokens?: number;
  readonly maxLogitRows?: number;
  /** Tokens of one segment; a real device has {@linkcode SEGMENT_TOKENS}. */
  readonly segmentTokens?: number;
  /** Whether it runs the step that it is told follows at once, as a GPU does. */
  readonly ahead?: boolean;
}

/** Rows of the test vocabulary. */
export const TEST_VOCAB = 97;

/** Token i is the i-th of 97 characters; the last three ids are control tokens. */
export function testVocabulary(): TokenTable {
  const texts = Array.from({ length: TEST_VOCAB }, (_, id) => id < 94 ? String.fromCharCode(33 + id) : `<${id}>`);
  const encoder = new TextEncoder();
  const pieces = texts.map((text) => encoder.encode(text));
  const offsets = new Uint32Array(TEST_VOCAB + 1);
  pieces.forEach((piece, id) => offsets[id + 1] = offsets[id] + piece.length);
  return {
    size: TEST_VOCAB,
    bytes: encoder.encode(texts.join("")),
    offsets,
    special: Uint8Array.from(texts, (_, id) => id < 94 ? 0 : 1),
  };
}

/** Logits after `history`: uniform in [-4, 4), a hash of every token, its position and the id. */
export function testLogits(history: ArrayLike<number>): Float32Array {
  let hash = 0x811c9dc5;
  for (let i = 0; i < history.length; i++) hash = Math.imul(hash ^ (history[i] + 1), 0x01000193) ^ (hash >>> 13) ^ i;
  return Float32Array.from({ length: TEST_VOCAB }, (_, id) => {
    let mixed = Math.imul(hash ^ Math.imul(id + 1, 0x9e3779b1), 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0xc2b2ae35);
    return ((mixed ^ (mixed >>> 16)) >>> 0) / 2 ** 29 - 4;
  });
}

/** The `count` greedy tokens after `prompt`. */
export function testGreedy(prompt: ArrayLike<number>, count: number): number[] {
  const history = Array.from(prompt);
  for (let i = 0; i < count; i++) {
    const logits = testLogits(history);
    history.push(logits.indexOf(Math.max(...logits)));
  }
  return history.slice(prompt.length);
}

/**
 * Keeps token ids where a real device keeps keys and values. A partial over a node holds the node's token ids instead of
 * sums, so a segment that is missing, stale or somebody else's gives a wrong token.
 */
export class TestDevice implements Device {
  readonly info: DeviceInfo;
  readonly config: ModelConfig = {
    family: "test",
    layers: 1,
    hidden: 1,
    heads: 1,
    kvHeads: 1,
    headDim: 1,
    intermediate: 1,
    vocab: TEST_VOCAB,
    contextLength: 4096,
    normEps: 1e-5,
    rope: { dimensions: 0, inverseFrequencies: new Float64Array(), magnitude: 1, pairing: "halves" },
  };
  /** Batches run so far. */
  steps = 0;
  /** Steps that were run ahead when they were asked for, and those that came instead of one that was. */
  readonly foreseen = { right: 0, wrong: 0 };
  /** Runs before each step; may throw. */
  beforeStep: (batch: readonly StepSequence[]) => void = () => {};
  /** Changes the logits of a row. */
  spoil: (logits: Float32Array, row: number) => void = () => {};
  readonly layout: KvLayout;
  readonly blocks: number;
  readonly blockBytes: number;
  readonly #kv: Int32Array;
  readonly #segmentTokens: number;
  #begun: TestStep | undefined;
  /** What was run ahead. */
  #ahead: readonly StepSequence[] = [];

  constructor(options: TestDeviceOptions) {
    const {
      blocks,
      blockTokens = 4,
      maxStepTokens = 24,
      maxLogitRows = 16,
      segmentTokens = SEGMENT_TOKENS,
      ahead = false,
    } = options;
    this.layout = { layers: 1, heads: 1, kvHeads: 1, headDim: 1, blockTokens, kvType: "f32" };
    this.blocks = blocks;
    this.blockBytes = 4 * blockTokens;
    this.#segmentTokens = segmentTokens;
    this.#kv = new Int32Array(blocks * blockTokens).fill(-1);
    this.info = {
      kind: ahead ? "cuda" : "reference",
      description: "test device",
      blockTokens,
      blocks,
      blockBytes: 4 * blockTokens,
      weightBytes: 0,
      kvType: "f32",
      activations: "f32",
      maxStepTokens,
      maxLogitRows,
    };
  }

  step(batch: readonly StepSequence[], hints?: StepHints): StepOutput {
    if (batch.some(({ absent = [] }) => absent.length > 0)) {
      throw new RangeError("Cannot run a step: segments are absent");
    }
    const stop = this.begin(batch, hints).next();
    if (stop.kind !== "done") throw new Error(`The test device stopped at ${stop.kind}`);
    return stop.output;
  }

  begin(batch: readonly StepSequence[], { following }: StepHints = {}): DeviceStep {
    if (this.#begun?.live) throw new Error("Cannot begin a step: another one is neither done nor abandoned");
    // Segments of a test are smaller than those of a real device.
    checkBatch(batch.map((sequence) => ({ ...sequence, absent: [] })), this.info, this.config);
    for (const { absent = [], position } of batch) {
      let end = 0;
      for (const { from, to } of absent) {
        if (from < end || to <= from || to * this.#segmentTokens > position) {
          throw new RangeError(`Cannot begin a step: absent segments ${from} to ${to} at position ${position}`);
        }
        end = to;
      }
    }
    if (following !== undefined) checkBatch(following.batch, this.info, this.config);
    this.beforeStep(batch);
    this.steps++;
    if (this.#ahead.length > 0) {
      const ahead = new Set(this.#ahead.map(nameOf));
      this.foreseen[batch.every((sequence) => ahead.has(nameOf(sequence))) ? "right" : "wrong"]++;
    }
    this.#ahead = [];
    this.#begun = new TestStep(batch, {
      segmentTokens: this.#segmentTokens,
      write: () => this.#write(batch),
      finish: (absent) => {
        const output = this.#finish(batch, absent);
        if (following !== undefined) this.#runAhead(batch, { following, output });
        return output;
      },
    });
    return this.#begun;
  }

  /** Nothing of it counts, but what it writes into blocks stays. */
  #runAhead(
    batch: readonly StepSequence[],
    { following: { batch: behind, sources }, output }: {
      readonly following: FollowingStep;
      readonly output: StepOutput;
    },
  ): void {
    let rows = 0;
    const last = batch.map((sequence) => (rows += logitRows(sequence)) - 1);
    this.#ahead = behind.map((sequence, index) => {
      const source = sources[index];
      return source === undefined ? sequence : { ...sequence, tokens: [output.top(last[source]).ids[0]] };
    });
    this.#write(this.#ahead);
  }

  #write(batch: readonly StepSequence[]): void {
    for (const { tokens, position, blocks } of batch) {
      for (let i = 0; i < tokens.length; i++) this.#kv[this.#slot(blocks, position + i)] = tokens[i];
    }
  }

  #finish(batch: readonly StepSequence[], absent: readonly ReadonlyMap<number, Float32Array>[]): StepOutput {
    const rows: Float32Array[] = [];
    for (const [index, { tokens, position, blocks, logits }] of batch.entries()) {
      const tokenAt = (at: number) => {
        const segment = absent[index].get(Math.floor(at / this.#segmentTokens));
        return segment === undefined ? this.#kv[this.#slot(blocks, at)] : segment[at % this.#segmentTokens];
      };
      const end = position + tokens.length;
      const first = logits === "all" ? position + 1 : logits === "last" ? end : end + 1;
      // A chunk without logits reads what is before it all the same: its keys and values depend on that.
      for (let at = 0; at < end; at++) {
        if (tokenAt(at) < 0) throw new Error(`The test device read position ${at}, which holds nothing`);
      }
      for (let length = first; length <= end; length++) {
        rows.push(testLogits(Array.from({ length }, (_, at) => tokenAt(at))));
      }
    }
    rows.forEach((logits, row) => this.spoil(logits, row));
    return {
      rows: rows.length,
      logits: (row) => rows[row],
      logSumExp: (row) => Math.log(rows[row].reduce((sum, logit) => sum + Math.exp(logit), 0)),
      top: (row) => {
        const ids = Int32Array.from(rows[row].keys()).sort((a, b) => rows[row][b] - rows[row][a] || a - b)
          .slice(0, TOP_CANDIDATES);
        return { ids, logits: Float32Array.from(ids, (id) => rows[row][id]) };
      },
    };
  }

  attendNodes(_layer: number, work: readonly NodeWork[]): readonly (readonly NodePartial[])[] {
    return work.map(({ segments: { from, to }, blocks }) =>
      segmentNodes(from, to).map((node) => {
        const o = Float32Array.from(
          { length: node.segments * this.#segmentTokens },
          (_, i) => this.#kv[this.#slot(blocks, (node.first - from) * this.#segmentTokens + i)],
        );
        return { node, o, lse: Float32Array.of(o.length) };
      })
    );
  }

  attend(_layer: number, _ranges: readonly AttendRange[]): AttentionPartial {
    throw new Error("The test device has no attention");
  }

  readBlock(block: number): Uint8Array {
    const { blockTokens } = this.info;
    return new Uint8Array(this.#kv.slice(block * blockTokens, (block + 1) * blockTokens).buffer);
  }

  writeBlock(block: number, bytes: Uint8Array): void {
    this.#kv.set(new Int32Array(bytes.slice().buffer), block * this.info.blockTokens);
  }

  [Symbol.dispose](): void {}

  #slot(blocks: ArrayLike<number>, position: number): number {
    const { blockTokens } = this.info;
    return blocks[Math.floor(position / blockTokens)] * blockTokens + position % blockTokens;
  }
}

function nameOf({ tokens, position, blocks, logits }: StepSequence): string {
  return `${Array.from(tokens)} at ${position} in ${Array.from(blocks)} for ${logits}`;
}

/** What a {@linkcode TestStep} needs of its device. */
interface TestStepPorts {
  readonly segmentTokens: number;
  /** Writes the batch's tokens into its blocks. */
  readonly write: () => void;
  /** Computes the output; the tokens of the absent segments of each sequence by segment. */
  readonly finish: (absent: readonly ReadonlyMap<number, Float32Array>[]) => StepOutput;
}

/** A step of one layer. */
class TestStep implements DeviceStep {
  readonly #batch: readonly StepSequence[];
  readonly #ports: TestStepPorts;
  readonly #absent: Map<number, Float32Array>[];
  #stage: "begun" | "queries" | "over" = "begun";

  constructor(batch: readonly StepSequence[], ports: TestStepPorts) {
    this.#batch = batch;
    this.#ports = ports;
    this.#absent = batch.map(() => new Map());
  }

  get live(): boolean {
    return this.#stage !== "over";
  }

  next(): StepStop {
    switch (this.#stage) {
      case "begun":
        this.#stage = "queries";
        if (this.#batch.some(({ absent = [] }) => absent.length > 0)) return { kind: "queries", layer: 0 };
        return this.next();
      case "queries": {
        // All writes come before any read, so that a block written by two sequences is noticed.
        this.#ports.write();
        const missing = this.#missing();
        if (missing.length > 0) return { kind: "partials", layer: 0 };
        this.#stage = "over";
        return { kind: "done", output: this.#ports.finish(this.#absent) };
      }
      case "over":
        throw new Error("Cannot go on with a step: it is over");
      default:
        return this.#stage satisfies never;
    }
  }

  queries(index: number): Float32Array {
    return Float32Array.from(this.#batch[index].tokens);
  }

  put(index: number, node: SegmentNode, { o }: AttentionPartial): void {
    const known = this.#nodes(index).some(({ first, segments }) => first === node.first && segments === node.segments);
    const { segmentTokens } = this.#ports;
    if (!known || o.length !== node.segments * segmentTokens) {
      throw new RangeError(`Cannot put node ${node.first}+${node.segments} with ${o.length} tokens: it is not wanted`);
    }
    for (let i = 0; i < node.segments; i++) {
      this.#absent[index].set(node.first + i, o.slice(i * segmentTokens, (i + 1) * segmentTokens));
    }
  }

  abandon(): void {
    this.#stage = "over";
  }

  #nodes(index: number): SegmentNode[] {
    return (this.#batch[index].absent ?? []).flatMap(({ from, to }) => segmentNodes(from, to));
  }

  #missing(): SegmentNode[] {
    return this.#batch.flatMap((_, index) => this.#nodes(index).filter(({ first }) => !this.#absent[index].has(first)));
  }
}
