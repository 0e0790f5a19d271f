/**
 * The toy model as a device: real block tables, steps that stop, partials from elsewhere, exact answers.
 *
 * @module
 */
import type { AttentionPartial } from "../../kernels/merge_partials/spec.ts";
import { checkBatch } from "../../runtime/device/batch_check.ts";
import type {
  AttendRange,
  Device,
  DeviceInfo,
  DeviceStep,
  StepOutput,
  StepSequence,
} from "../../runtime/device/device.ts";
import type { ModelConfig } from "../../runtime/model/model.ts";
import { TOY_HEAD_DIM, TOY_HEADS, TOY_LAYERS, TOY_MAX_TOKENS, TOY_VOCAB, TOY_WIDTH } from "./toy_model.ts";
import { ToyStep } from "./toy_step.ts";
import { ToyStore, type ToyStoreOptions } from "./toy_store.ts";

/** Sizes of a {@linkcode ToyDevice}. */
export interface ToyDeviceOptions extends ToyStoreOptions {
  /** Tokens of one segment. */
  readonly segmentTokens: number;
  /** Most tokens in one step. */
  readonly maxStepTokens: number;
  /** Most rows of logits in one step. */
  readonly maxLogitRows: number;
}

/** Runs the toy model. */
export class ToyDevice extends ToyStore implements Device {
  /** See {@linkcode Device.info}. */
  readonly info: DeviceInfo;
  /** See {@linkcode Device.config}. */
  readonly config: ModelConfig;
  /** Steps begun. */
  steps = 0;
  /** Whether a step runs for its time alone, over blocks that nobody has filled. */
  isProbe: () => boolean = () => false;
  /** Runs when a step begins; may throw. */
  beforeStep: () => void = () => {};
  readonly #segmentTokens: number;
  #open: object | undefined;

  /** Makes poisoned blocks and a model without weights. */
  constructor(options: ToyDeviceOptions) {
    super(options);
    this.#segmentTokens = options.segmentTokens;
    this.config = {
      family: "toy",
      layers: TOY_LAYERS,
      hidden: 1,
      heads: TOY_HEADS,
      kvHeads: 1,
      headDim: TOY_HEAD_DIM,
      intermediate: 1,
      vocab: TOY_VOCAB,
      contextLength: TOY_MAX_TOKENS,
      normEps: 1e-5,
      rope: { dimensions: 0, inverseFrequencies: new Float64Array(), magnitude: 1, pairing: "halves" },
    };
    this.info = {
      kind: "reference",
      description: "toy device",
      blockTokens: options.blockTokens,
      blocks: options.blocks,
      blockBytes: this.blockBytes,
      weightBytes: 0,
      kvType: "f32",
      activations: "f32",
      maxStepTokens: options.maxStepTokens,
      maxLogitRows: options.maxLogitRows,
    };
  }

  /** See {@linkcode Device.step}. */
  step(batch: readonly StepSequence[]): StepOutput {
    const whole = batch.every(({ absent = [] }) => absent.length === 0);
    if (!whole) throw new RangeError("Cannot run the batch: wanted every segment in the pool, some are absent");
    this.unchecked = this.isProbe();
    const stop = this.begin(batch).next();
    this.unchecked = false;
    if (stop.kind !== "done") throw new Error(`Cannot run the batch: wanted it done, it stopped for ${stop.kind}`);
    return stop.output;
  }

  /** See {@linkcode Device.begin}. */
  begin(batch: readonly StepSequence[]): DeviceStep {
    if (this.#open !== undefined) throw new Error("Cannot begin a step: another one is neither done nor abandoned");
    // Its segments are shorter than those that the common check knows.
    checkBatch(batch.map((sequence) => ({ ...sequence, absent: [] })), this.info, this.config);
    for (const sequence of batch) this.#checkAbsent(sequence);
    this.beforeStep();
    this.steps++;
    const step = new ToyStep(batch, {
      store: this,
      segmentTokens: this.#segmentTokens,
      onEnd: () => this.#open = undefined,
    });
    this.#open = step;
    return step;
  }

  /** See {@linkcode Device.attend}. */
  attend(layer: number, ranges: readonly AttendRange[]): AttentionPartial {
    const o = new Float32Array(ranges.length * TOY_WIDTH);
    const lse = new Float32Array(ranges.length * TOY_HEADS);
    for (const [index, { query, start, length, blocks }] of ranges.entries()) {
      const keys = this.keys(layer, { blocks, base: start, from: start, to: start + length });
      for (let head = 0; head < TOY_HEADS; head++) {
        this.sumRow(keys, { queries: query, row: head }).store({ o, lse }, index * TOY_HEADS + head);
      }
    }
    return { o, lse };
  }

  #checkAbsent({ absent = [], position }: StepSequence): void {
    let end = 0;
    for (const { from, to } of absent) {
      if (!(from >= end && to > from && to * this.#segmentTokens <= position)) {
        throw new RangeError(
          `Cannot run the batch: absent segments must ascend below position ${position}, got [${from}, ${to}) after ${end}`,
        );
      }
      end = to;
    }
  }
}
