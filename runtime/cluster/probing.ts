/**
 * Times a few steps of an idle instance, so that its performance model can predict before the first request has run.
 *
 * @module
 */
import type { BlockId, BlockPool } from "../../scheduler/block_pool.ts";
import { type Probe, probes } from "../../scheduler/performance/probes.ts";
import type { Device } from "../device/device.ts";
import type { StepModel } from "./instance.ts";

/** Makes {@linkcode Probing}. */
export interface ProbingOptions {
  /** Computes. */
  readonly device: Device;
  /** Its blocks; each probe borrows some and gives them back. */
  readonly pool: BlockPool;
  /** Learns. */
  readonly model: StepModel;
  /** Most running sequences. */
  readonly maxBatch: number;
  /** Monotonic clock, ms. */
  readonly now: () => number;
}

/** Probes that are left. */
export class Probing {
  readonly #options: ProbingOptions;
  readonly #left: Probe[];

  /** Plans the probes that fit the device. */
  constructor(options: ProbingOptions) {
    this.#options = options;
    const { device: { info, config }, maxBatch } = options;
    const kvTokens = info.blocks * info.blockTokens;
    this.#left = [...probes({ maxBatch, kvTokens, maxContextTokens: Math.min(config.contextLength, kvTokens) - 1 })];
  }

  /** Runs one probe, a single step. Without enough free blocks there is none. @returns whether more are left. */
  next(): boolean {
    const { device, pool, model, now } = this.#options;
    const probe = this.#left.shift();
    if (probe === undefined) return false;
    const { batch, contextTokens } = probe;
    const position = Math.max(0, Math.floor(contextTokens / batch) - 1);
    const blocksOfOne = Math.ceil((position + 1) / device.info.blockTokens);
    // What is free without evicting a prefix.
    if (pool.counts.free < batch * blocksOfOne) return this.#left.length > 0;
    const sequences: BlockId[][] = Array.from(
      { length: batch },
      () => Array.from({ length: blocksOfOne }, () => pool.allocate()),
    );
    const startMs = now();
    try {
      device.step(sequences.map((blocks) => ({ tokens: [0], position, blocks, logits: "last" })));
      model.observe({
        batch,
        tokens: batch,
        contextTokens: batch * (position + 1),
        ms: now() - startMs,
        remote: false,
        waitMs: 0,
      });
    } catch {
      // A device that fails says so to the first request; there is nobody to tell yet.
      return false;
    } finally {
      for (const blocks of sequences) for (const block of blocks) pool.release(block);
    }
    return this.#left.length > 0;
  }
}
