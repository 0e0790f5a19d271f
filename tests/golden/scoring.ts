/**
 * Drives a device over token ids without an engine.
 *
 * @module
 */
import type { Device, StepOutput } from "../../runtime/device/device.ts";

/** A single sequence that owns the first blocks of a device's pool. */
export class DeviceSequence {
  readonly #device: Device;
  readonly #blocks: number[];
  #position = 0;

  /** Starts at position 0. */
  constructor(device: Device, firstBlock = 0) {
    this.#device = device;
    this.#blocks = Array.from({ length: device.info.blocks - firstBlock }, (_, i) => firstBlock + i);
  }

  /** Feeds `ids` in chunks of at most `chunk`, calling `onRow` for every position when `all`, else for the last one. */
  feed(
    ids: readonly number[],
    options: { chunk?: number; all?: boolean; onRow: (position: number, output: StepOutput, row: number) => void },
  ): void {
    const chunk = options.chunk ?? (options.all ? this.#device.info.maxLogitRows : this.#device.info.maxStepTokens);
    for (let at = 0; at < ids.length; at += chunk) {
      const tokens = ids.slice(at, at + chunk);
      const last = at + tokens.length === ids.length;
      const logits = options.all ? "all" : last ? "last" : "none";
      const output = this.#device.step([{ tokens, position: this.#position, blocks: this.#blocks, logits }]);
      for (let row = 0; row < output.rows; row++) {
        options.onRow(this.#position + tokens.length - output.rows + row, output, row);
      }
      this.#position += tokens.length;
    }
  }
}

/** Log-probability of each token of `ids` but the first. */
export function scoreText(device: Device, ids: readonly number[]): number[] {
  const scores: number[] = [];
  new DeviceSequence(device).feed(ids, {
    all: true,
    onRow(position, output, row) {
      if (position + 1 < ids.length) scores.push(output.logits(row)[ids[position + 1]] - output.logSumExp(row));
    },
  });
  return scores;
}
