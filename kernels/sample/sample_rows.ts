/**
 * Rows to sample as the kernel reads them.
 *
 * @module
 */
import type { SampleRow } from "./spec.ts";

/** Bytes of one row. */
export const SAMPLE_ROW_BYTES = 64;

const MODE = { greedy: 0, draw: 1, host: 2 } as const;
/** All tokens are kept. */
const ALL = 0xffffffff;

/**
 * Writes a row, {@linkcode SAMPLE_ROW_BYTES} bytes, little endian: u32 mode, u32 topK, f64 inverseTemperature, f64 topP, f64 depth,
 * u32 seed[2], u64 accepted, i32 slot, u32 tag, 8 bytes of 0.
 *
 * @throws {RangeError} when `into` has another size, or a number is out of range.
 */
export function writeSampleRow(into: Uint8Array, { mode, accepted, slot, tag = 0 }: SampleRow): void {
  if (into.length !== SAMPLE_ROW_BYTES) {
    throw new RangeError(`Cannot write a row to sample: wanted ${SAMPLE_ROW_BYTES} bytes, got ${into.length}`);
  }
  const view = new DataView(into.buffer, into.byteOffset, SAMPLE_ROW_BYTES);
  into.fill(0);
  view.setUint32(0, MODE[mode.kind], true);
  if (mode.kind === "draw") {
    const { inverseTemperature, topK, topP, depth, seed } = mode;
    if (!(topK >= 1 && (topK === Infinity || Number.isInteger(topK)))) {
      throw new RangeError(`Cannot write a row to sample: topK must be 1 or more, got ${topK}`);
    }
    if (!(inverseTemperature > 0 && inverseTemperature < Infinity)) {
      throw new RangeError(
        `Cannot write a row to sample: inverseTemperature must be positive and finite, got ${inverseTemperature}`,
      );
    }
    if (!Number.isSafeInteger(seed)) {
      throw new RangeError(`Cannot write a row to sample: seed must be an integer of up to 53 bits, got ${seed}`);
    }
    view.setUint32(4, Math.min(topK, ALL), true);
    view.setFloat64(8, inverseTemperature, true);
    view.setFloat64(16, topP, true);
    view.setFloat64(24, depth, true);
    view.setBigInt64(32, BigInt(seed), true);
  }
  view.setBigUint64(40, BigInt(accepted), true);
  view.setInt32(48, slot ?? -1, true);
  view.setUint32(52, tag, true);
}
