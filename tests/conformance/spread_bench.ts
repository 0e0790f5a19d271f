/**
 * A device under test with a sequence in its pool, whose segments can be put elsewhere.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import {
  type Device,
  type DeviceOptions,
  type KvStore,
  SEGMENT_TOKENS,
  type SegmentRange,
  type StepSequence,
} from "../../runtime/device/device.ts";
import { SeededRandom } from "../synthetic/random.ts";
import type { SyntheticSpec } from "../synthetic/spec.ts";
import { copySegments, runSpread, type Share, type SpreadOptions } from "./spread_sequence.ts";

/** A model and a pool. */
export interface Setting {
  /** For names of tests. */
  readonly name: string;
  /** The model. */
  readonly spec: SyntheticSpec;
  /** The pool and the activations. */
  readonly options: Pick<DeviceOptions, "blockTokens" | "kvType" | "activations">;
}

const SPEC: SyntheticSpec = {
  dtype: "Q4_1",
  embeddingDtype: "Q8_0",
  heads: 6,
  kvHeads: 2,
  intermediate: 160,
  contextLength: 4096,
};

/** Settings that differ in everything a layout has. */
export const SETTINGS: readonly Setting[] = [
  { name: "f16, blocks of 16", spec: SPEC, options: { blockTokens: 16, kvType: "f16", activations: "i8" } },
  {
    name: "bf16, blocks of 256, biases",
    spec: { ...SPEC, heads: 3, kvHeads: 3, biases: true },
    options: { blockTokens: 256, kvType: "bf16", activations: "i8" },
  },
  {
    name: "f32, blocks of 64, eight heads a KV head, heads of 20",
    spec: { ...SPEC, heads: 8, kvHeads: 1, headDim: 20, ropeDimensions: 12 },
    options: { blockTokens: 64, kvType: "f32", activations: "f32" },
  },
];

/** Tokens behind the whole segments that steps compute. */
export const TAIL = 40;
/** A second sequence, all in the pool. */
const NEIGHBOUR = 30;
/** Block ids that would end a device that read them. */
const HOSTILE = [2 ** 32 - 1, -1, NaN, 2 ** 20];

function ids(count: number, seed: number): number[] {
  return Array.from({ length: count }, (_, i) => (i * i * 7 + seed * 31 + i) % 250);
}

/** The bits of values. */
export function bits(values: Float32Array): Uint32Array {
  return new Uint32Array(values.slice().buffer);
}

/** How to run the tail of a spread sequence. */
export interface CheckOptions extends SpreadOptions {
  /** Pools that hold the absent ranges in turn. */
  readonly stores: readonly KvStore[];
  /** Tokens of each step, again and again. */
  readonly chunks: readonly number[];
  /** Whether another sequence, all in the pool, comes first in every step. @default {false} */
  readonly beside?: boolean;
}

/** A device with one sequence all in its pool, and what its steps gave. */
export class SpreadBench {
  /** The device. */
  readonly device: Device;
  /** Random numbers of its tests. */
  readonly random: SeededRandom;
  /** Tokens of the sequence. */
  readonly ids: readonly number[];
  /** Its blocks. */
  readonly blocks: readonly number[];
  /** Logits of its tail, bit by bit. */
  readonly whole: readonly Uint32Array[];
  readonly #segments: number;

  /** Fills the pool of `device` with a sequence of so many whole segments and a tail. */
  constructor(device: Device, segments: number) {
    this.device = device;
    this.random = new SeededRandom(segments, "spread");
    this.#segments = segments;
    this.ids = ids(segments * SEGMENT_TOKENS + TAIL, 1);
    this.blocks = Array.from({ length: this.#count(this.ids.length) }, (_, i) => i);
    for (let position = 0; position < segments * SEGMENT_TOKENS; position += SEGMENT_TOKENS) {
      const tokens = this.ids.slice(position, position + SEGMENT_TOKENS);
      device.step([{ tokens, position, blocks: this.blocks, logits: "none" }]);
    }
    const output = device.step([this.#sequence(this.blocks, 0, TAIL)]);
    this.whole = Array.from({ length: TAIL }, (_, row) => bits(output.logits(row)));
  }

  /** Blocks that `open` takes for a bench of so many segments. */
  static options({ options }: Setting, segments: number): DeviceOptions {
    const blocks = 2 * (segments + 1) * SEGMENT_TOKENS / (options.blockTokens ?? 16) + 4;
    return { ...options, blocks, maxLogitRows: 64, maxStepTokens: 300 };
  }

  #count(tokens: number): number {
    return Math.ceil(tokens / this.device.layout.blockTokens);
  }

  #sequence(blocks: ArrayLike<number>, from: number, to: number): StepSequence {
    const position = this.#segments * SEGMENT_TOKENS + from;
    return { tokens: this.ids.slice(position, position + to - from), position, blocks, logits: "all" };
  }

  /** The blocks of a sequence that begins with copies of the local segments; others are poisoned. */
  #home(absent: readonly SegmentRange[]): number[] {
    const { device } = this;
    const poison = new Uint8Array(device.blockBytes).fill(0xff);
    const first = this.blocks.length;
    const home = this.blocks.map((_, i) => first + i);
    for (let block = first; block < device.blocks; block++) device.writeBlock(block, poison);
    const segmentBlocks = SEGMENT_TOKENS / device.layout.blockTokens;
    for (let i = 0; i < this.#segments * segmentBlocks; i++) {
      if (absent.some(({ from, to }) => i >= from * segmentBlocks && i < to * segmentBlocks)) {
        home[i] = HOSTILE[i % HOSTILE.length];
      } else {
        device.writeBlock(home[i], device.readBlock(this.blocks[i]));
      }
    }
    return home;
  }

  /** Puts segments into the stores, one range each in turn, in scattered blocks; the stores' other blocks are poisoned. */
  shares(absent: readonly SegmentRange[], stores: readonly KvStore[]): Share[] {
    const segmentBlocks = SEGMENT_TOKENS / this.device.layout.blockTokens;
    const free = new Map(stores.map((store) => [store, scattered(store.blocks)]));
    for (const store of stores) {
      const poison = new Uint8Array(store.blockBytes).fill(0xff);
      for (let block = 0; block < store.blocks; block++) store.writeBlock(block, poison);
    }
    return absent.map(({ from, to }, index) => {
      const store = stores[index % stores.length];
      const blocks = free.get(store)?.splice(0, (to - from) * segmentBlocks) ?? [];
      const share = { from, to, store, blocks };
      copySegments({ store: this.device, blocks: this.blocks }, share);
      return share;
    });
  }

  /** Runs the tail over spread segments in steps of the given sizes and compares every row. */
  check(absent: readonly SegmentRange[], options: CheckOptions): void {
    const { stores, chunks, beside = false } = options;
    const blocks = this.#home(absent);
    const shares = this.shares(absent, stores);
    let from = 0;
    for (let step = 0; from < TAIL; step++) {
      const to = Math.min(TAIL, from + chunks[step % chunks.length]);
      const neighbour = this.#neighbour();
      const batch = [
        ...(beside ? [{ ...neighbour, shares: [] }] : []),
        { ...this.#sequence(blocks, from, to), absent, shares },
      ];
      const output = runSpread(this.device, batch, options);
      assertEquals(output.rows, to - from + (beside ? 1 : 0));
      const first = beside ? 1 : 0;
      for (let row = from; row < to; row++) {
        assertEquals(bits(output.logits(first + row - from)), this.whole[row], `row ${row} of absent ${name(absent)}`);
      }
      from = to;
    }
  }

  /** Another sequence, in the last blocks of the pool. */
  #neighbour(): StepSequence {
    const last = this.device.blocks - 1;
    const blocks = Array.from({ length: this.#count(NEIGHBOUR) }, (_, i) => last - i);
    return { tokens: ids(NEIGHBOUR, 9), position: 0, blocks, logits: "last" };
  }
}

function name(absent: readonly SegmentRange[]): string {
  return absent.map(({ from, to }) => `[${from}, ${to})`).join(" ");
}

/** All ids below `count`, each once, in an order without runs. */
function scattered(count: number): number[] {
  const random = new SeededRandom(count, "blocks");
  const keys = Array.from({ length: count }, () => random.uniform());
  return Array.from({ length: count }, (_, i) => i).sort((a, b) => keys[a] - keys[b]);
}
