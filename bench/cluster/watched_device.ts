/**
 * A device that notes when a remote layer's queries were there, when its partials were and when only waiting was left.
 *
 * @module
 */
import type { AttentionPartial, SegmentNode } from "../../kernels/merge_partials/spec.ts";
import type {
  AttendRange,
  Device,
  DeviceInfo,
  DeviceStep,
  KvLayout,
  NodePartial,
  NodeWork,
  StepOutput,
  StepSequence,
  StepStop,
} from "../../runtime/device/device.ts";
import type { ModelConfig } from "../../runtime/model/model.ts";

/** Times of remote layers, ms. */
export interface LayerTimes {
  /** From the queries to the last partial. */
  readonly answerMs: number[];
  /** Part of it in which there was nothing left to compute. */
  readonly waitMs: number[];
}

/** Another device, watched. */
export class WatchedDevice implements Device {
  /** What was noted; emptied by whoever reads it. */
  readonly times: LayerTimes = { answerMs: [], waitMs: [] };
  readonly #device: Device;

  /** Watches `device`, which stays the caller's. */
  constructor(device: Device) {
    this.#device = device;
  }

  /** See {@linkcode Device.info}. */
  get info(): DeviceInfo {
    return this.#device.info;
  }

  /** See {@linkcode Device.config}. */
  get config(): ModelConfig {
    return this.#device.config;
  }

  /** See {@linkcode Device.layout}. */
  get layout(): KvLayout {
    return this.#device.layout;
  }

  /** See {@linkcode Device.blocks}. */
  get blocks(): number {
    return this.#device.blocks;
  }

  /** See {@linkcode Device.blockBytes}. */
  get blockBytes(): number {
    return this.#device.blockBytes;
  }

  /** See {@linkcode Device.step}. */
  step(batch: readonly StepSequence[]): StepOutput {
    return this.#device.step(batch);
  }

  /** See {@linkcode Device.begin}. */
  begin(batch: readonly StepSequence[]): DeviceStep {
    return new WatchedStep(this.#device.begin(batch), this.times);
  }

  /** See {@linkcode Device.attend}. */
  attend(layer: number, ranges: readonly AttendRange[]): AttentionPartial {
    return this.#device.attend(layer, ranges);
  }

  /** See {@linkcode Device.attendNodes}. */
  attendNodes(layer: number, work: readonly NodeWork[]): readonly (readonly NodePartial[])[] {
    return this.#device.attendNodes(layer, work);
  }

  /** See {@linkcode Device.readBlock}. */
  readBlock(block: number): Uint8Array {
    return this.#device.readBlock(block);
  }

  /** See {@linkcode Device.writeBlock}. */
  writeBlock(block: number, bytes: Uint8Array): void {
    this.#device.writeBlock(block, bytes);
  }

  /** The device stays open. */
  [Symbol.dispose](): void {}
}

class WatchedStep implements DeviceStep {
  readonly #step: DeviceStep;
  readonly #times: LayerTimes;
  #askedMs = 0;
  #putMs = 0;
  #waitsMs: number | undefined;

  constructor(step: DeviceStep, times: LayerTimes) {
    this.#step = step;
    this.#times = times;
  }

  next(budget?: number): StepStop {
    if (this.#waitsMs !== undefined) {
      this.#times.answerMs.push(this.#putMs - this.#askedMs);
      this.#times.waitMs.push(Math.max(0, performance.now() - this.#waitsMs));
      this.#waitsMs = undefined;
    }
    const stop = this.#step.next(budget);
    if (stop.kind === "queries") this.#askedMs = performance.now();
    if (stop.kind === "partials") this.#waitsMs = performance.now();
    return stop;
  }

  queries(index: number): Float32Array {
    return this.#step.queries(index);
  }

  put(index: number, node: SegmentNode, partial: AttentionPartial): void {
    this.#step.put(index, node, partial);
    this.#putMs = performance.now();
  }

  abandon(): void {
    this.#step.abandon();
  }
}
