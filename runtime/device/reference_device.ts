/**
 * The reference device: the obvious transformer in f64, one token and one head at a time. It is the executable
 * specification of {@linkcode Device}, thousands of times slower than a real one; tests compare the others with it.
 *
 * Weights are exact, activations are never rounded (whatever `activations` says) but for queries and attention partials,
 * which are f32; keys and values are rounded to the pool's type.
 *
 * @module
 */
import type { AttentionPartial } from "../../kernels/merge_partials/spec.ts";
import type { ModelConfig, OpenModel } from "../model/model.ts";
import { checkBatch, checkWhole } from "./batch_check.ts";
import { CheckedStep, complete } from "./checked_step.ts";
import type {
  AttendRange,
  Device,
  DeviceInfo,
  DeviceOptions,
  DeviceStep,
  KvLayout,
  NodePartial,
  NodeWork,
  StepOutput,
  StepSequence,
} from "./device.ts";
import { layoutOf } from "./kv_layout.ts";
import { ReferenceKvStore } from "./reference_kv_store.ts";
import { readWeights, ReferenceStep, type ReferenceWeights } from "./reference_step.ts";
import { sequenceNodes } from "./step_nodes.ts";

/** Runs a model in f64 on the calling thread. */
export class ReferenceDevice implements Device {
  /** See {@linkcode Device.info}. */
  readonly info: DeviceInfo;
  /** See {@linkcode Device.config}. */
  readonly config: ModelConfig;
  /** See {@linkcode Device.layout}. */
  readonly layout: KvLayout;
  readonly #weights: ReferenceWeights;
  readonly #store: ReferenceKvStore;
  #step: CheckedStep | undefined;

  /** Reads all weights. @throws {RangeError} when a size is out of range. */
  constructor(model: OpenModel, options: DeviceOptions) {
    const { blocks, blockTokens = 16, kvType = "f16" } = options;
    this.config = model.config;
    this.layout = layoutOf(model.config, { blockTokens, kvType });
    this.#store = new ReferenceKvStore({ layout: this.layout, blocks });
    this.#weights = readWeights(model);
    this.info = {
      kind: "reference",
      description: "reference, f64, 1 thread",
      blockTokens,
      blocks,
      blockBytes: this.#store.blockBytes,
      weightBytes: model.weightBytes,
      kvType,
      activations: options.activations ?? "i8",
      maxStepTokens: options.maxStepTokens ?? 512,
      maxLogitRows: options.maxLogitRows ?? 64,
    };
  }

  /** See {@linkcode Device.blocks}. */
  get blocks(): number {
    return this.info.blocks;
  }

  /** See {@linkcode Device.blockBytes}. */
  get blockBytes(): number {
    return this.info.blockBytes;
  }

  /** See {@linkcode Device.step}. @throws {Error} also when a step was begun and is neither done nor abandoned. */
  step(batch: readonly StepSequence[]): StepOutput {
    checkWhole(batch);
    return complete(this.begin(batch));
  }

  /** See {@linkcode Device.begin}. */
  begin(batch: readonly StepSequence[]): DeviceStep {
    this.#store.check();
    if (this.#step?.running) {
      throw new Error("Cannot begin a step: wanted the last one done or abandoned, got one that is neither");
    }
    checkBatch(batch, this.info, this.config);
    const nodes = batch.map((sequence) => sequenceNodes(sequence));
    const { config } = this;
    const runner = new ReferenceStep({ weights: this.#weights, config, store: this.#store, batch, nodes });
    this.#step = new CheckedStep({ runner, batch, nodes, sizes: config });
    return this.#step;
  }

  /** See {@linkcode Device.attendNodes}. */
  attendNodes(layer: number, work: readonly NodeWork[]): readonly (readonly NodePartial[])[] {
    return this.#store.attendNodes(layer, work);
  }

  /** See {@linkcode Device.attend}. */
  attend(layer: number, ranges: readonly AttendRange[]): AttentionPartial {
    return this.#store.attend(layer, ranges);
  }

  /** See {@linkcode Device.readBlock}. */
  readBlock(block: number): Uint8Array {
    return this.#store.readBlock(block);
  }

  /** See {@linkcode Device.writeBlock}. */
  writeBlock(block: number, bytes: Uint8Array): void {
    this.#store.writeBlock(block, bytes);
  }

  /** Makes the device unusable; its memory goes with it. */
  [Symbol.dispose](): void {
    this.#store[Symbol.dispose]();
  }
}
