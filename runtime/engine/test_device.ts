/**
 * A device for tests: its logits are a pure function of the tokens it finds through the block table, so any mistake in
 * scheduling, block tables or sharing shows as a wrong token.
 *
 * @module
 */
import type { AttentionPartial } from "../../kernels/merge_partials/spec.ts";
import { checkBatch } from "../device/batch_check.ts";
import {
  type AttendRange,
  type Device,
  type DeviceInfo,
  type StepOutput,
  type StepSequence,
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

/** Keeps token ids where a real device keeps keys and values. */
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
  /** Runs before each step; may throw. */
  beforeStep: (batch: readonly StepSequence[]) => void = () => {};
  /** Changes the logits of a row. */
  spoil: (logits: Float32Array, row: number) => void = () => {};
  readonly #kv: Int32Array;

  constructor(options: TestDeviceOptions) {
    const { blocks, blockTokens = 4, maxStepTokens = 24, maxLogitRows = 16 } = options;
    this.#kv = new Int32Array(blocks * blockTokens).fill(-1);
    this.info = {
      kind: "reference",
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

  step(batch: readonly StepSequence[]): StepOutput {
    checkBatch(batch, this.info, this.config);
    this.beforeStep(batch);
    this.steps++;
    // All writes come before any read, so that a block written by two sequences is noticed.
    for (const { tokens, position, blocks } of batch) {
      for (let i = 0; i < tokens.length; i++) this.#kv[this.#slot(blocks, position + i)] = tokens[i];
    }
    const rows: Float32Array[] = [];
    for (const { tokens, position, blocks, logits } of batch) {
      const end = position + tokens.length;
      const first = logits === "all" ? position + 1 : logits === "last" ? end : end + 1;
      for (let length = first; length <= end; length++) {
        rows.push(testLogits(Array.from({ length }, (_, i) => this.#kv[this.#slot(blocks, i)])));
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
