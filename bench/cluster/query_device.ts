/**
 * A device that only asks: each of its steps has queries for every layer and takes what comes back, and nothing else to
 * do, so that a step's time is that of its round trips.
 *
 * @module
 */
import { type AttentionPartial, type SegmentNode, segmentNodes } from "../../kernels/merge_partials/spec.ts";
import type {
  Device,
  DeviceInfo,
  DeviceStep,
  KvLayout,
  KvStore,
  NodePartial,
  NodeWork,
  StepOutput,
  StepSequence,
  StepStop,
} from "../../runtime/device/device.ts";
import type { ModelConfig } from "../../runtime/model/model.ts";

/** Asks for the attention of one token of one sequence. */
export class QueryDevice implements Device {
  /** See {@linkcode Device.info}. */
  readonly info: DeviceInfo;
  /** See {@linkcode Device.config}. */
  readonly config: ModelConfig;
  /** See {@linkcode Device.layout}. */
  readonly layout: KvLayout;
  /** Time of each layer from its queries to the last of its partials, ms. */
  readonly layerMs: number[] = [];
  readonly #store: KvStore;
  readonly #query: Float32Array;

  /** Asks with queries that fit `store`, which stays the caller's. */
  constructor(store: KvStore, config: ModelConfig) {
    const { layout: { heads, headDim, blockTokens, kvType }, blocks, blockBytes } = store;
    this.#store = store;
    this.config = config;
    this.layout = store.layout;
    this.info = {
      kind: "wasm",
      description: "queries alone",
      blockTokens,
      blocks,
      blockBytes,
      weightBytes: 0,
      kvType,
      activations: "i8",
      maxStepTokens: 1,
      maxLogitRows: 1,
    };
    this.#query = Float32Array.from({ length: heads * headDim }, (_, i) => Math.sin(i));
  }

  /** See {@linkcode Device.blocks}. */
  get blocks(): number {
    return this.#store.blocks;
  }

  /** See {@linkcode Device.blockBytes}. */
  get blockBytes(): number {
    return this.#store.blockBytes;
  }

  /** See {@linkcode Device.begin}. */
  begin([{ absent = [] }]: readonly StepSequence[]): DeviceStep {
    const nodes = absent.flatMap(({ from, to }) => segmentNodes(from, to));
    return new QueryStep({ layers: this.layout.layers, query: this.#query, nodes, layerMs: this.layerMs });
  }

  /** It computes nothing. @throws {TypeError} always. */
  step(): StepOutput {
    throw new TypeError("Cannot run a whole step: this device only asks");
  }

  /** It computes nothing. @throws {TypeError} always. */
  attend(): AttentionPartial {
    throw new TypeError("Cannot attend to ranges: this device only asks");
  }

  /** See {@linkcode Device.attendNodes}. */
  attendNodes(layer: number, work: readonly NodeWork[]): readonly (readonly NodePartial[])[] {
    return this.#store.attendNodes(layer, work);
  }

  /** See {@linkcode Device.readBlock}. */
  readBlock(block: number): Uint8Array {
    return this.#store.readBlock(block);
  }

  /** See {@linkcode Device.writeBlock}. */
  writeBlock(block: number, bytes: Uint8Array): void {
    this.#store.writeBlock(block, bytes);
  }

  /** The store stays open. */
  [Symbol.dispose](): void {}
}

interface QueryStepParts {
  readonly layers: number;
  readonly query: Float32Array;
  readonly nodes: readonly SegmentNode[];
  readonly layerMs: number[];
}

class QueryStep implements DeviceStep {
  readonly #parts: QueryStepParts;
  readonly #partials: readonly Float32Array[];
  #layer = -1;
  #asked = false;
  #askedMs = 0;

  constructor(parts: QueryStepParts) {
    this.#parts = parts;
    this.#partials = parts.nodes.map(() => new Float32Array(2 * parts.query.length));
  }

  next(): StepStop {
    if (this.#asked) {
      this.#asked = false;
      return { kind: "partials", layer: this.#layer };
    }
    const now = performance.now();
    if (this.#layer >= 0) this.#parts.layerMs.push(now - this.#askedMs);
    if (++this.#layer === this.#parts.layers) return { kind: "done", output: NO_OUTPUT };
    this.#asked = true;
    this.#askedMs = now;
    return { kind: "queries", layer: this.#layer };
  }

  queries(): Float32Array {
    return this.#parts.query;
  }

  put(_index: number, node: SegmentNode, { o, lse }: AttentionPartial): void {
    const kept = this.#partials[this.#parts.nodes.findIndex(({ first }) => first === node.first)];
    kept.set(o);
    kept.set(lse, o.length);
  }

  abandon(): void {}
}

const NO_OUTPUT: StepOutput = {
  rows: 0,
  logits: () => new Float32Array(0),
  logSumExp: () => 0,
  top: () => ({ ids: new Int32Array(0), logits: new Float32Array(0) }),
};
