/**
 * Quantisers for test data: valid blocks of every weight type, near the given values. They round plainly and do not
 * search for the best scale as production quantisers do.
 *
 * @module
 */
import { type DType, DTYPE_LAYOUT } from "../../kernels/dtype.ts";

/** Writes one block for `values`, which has the block's length, at byte `at`. */
type BlockEncoder = (values: Float32Array, view: DataView, at: number) => void;

/** `value` as f16 would hold it. */
function roundToF16(value: number): number {
  return Math.f16round(value);
}

function clampRound(value: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, Math.round(value)));
}

function quotient(value: number, step: number): number {
  return step === 0 ? 0 : value / step;
}

/** Scale and minimum (at most 0) of each group of 32, and the f16 steps of both in a K-quant block. */
function groupRanges(values: Float32Array, levels: number) {
  const scales: number[] = [];
  const minima: number[] = [];
  for (let group = 0; group < 8; group++) {
    const part = values.subarray(32 * group, 32 * group + 32);
    const low = Math.min(0, ...part);
    minima.push(-low);
    scales.push((Math.max(...part, low) - low) / levels);
  }
  const scaleStep = roundToF16(Math.max(...scales) / 63);
  const minimumStep = roundToF16(Math.max(...minima) / 63);
  return {
    scaleStep,
    minimumStep,
    scales: scales.map((scale) => clampRound(quotient(scale, scaleStep), 0, 63)),
    minima: minima.map((minimum) => clampRound(quotient(minimum, minimumStep), 0, 63)),
  };
}

/** Packs eight six-bit scales and eight six-bit minima into twelve bytes. */
function packScales(view: DataView, at: number, { scales, minima }: { scales: number[]; minima: number[] }): void {
  for (let index = 0; index < 4; index++) {
    view.setUint8(at + index, scales[index] | ((scales[index + 4] >> 4) << 6));
    view.setUint8(at + index + 4, minima[index] | ((minima[index + 4] >> 4) << 6));
    view.setUint8(at + index + 8, (scales[index + 4] & 15) | ((minima[index + 4] & 15) << 4));
  }
}

/** Q4_K and Q5_K share everything but the fifth bit, whose plane of 32 bytes lies before the nibbles. */
function encodeGrouped(values: Float32Array, view: DataView, at: number, bits: 4 | 5): void {
  const levels = 2 ** bits - 1;
  const ranges = groupRanges(values, levels);
  view.setFloat16(at, ranges.scaleStep, true);
  view.setFloat16(at + 2, ranges.minimumStep, true);
  packScales(view, at + 4, ranges);
  const highAt = at + 16;
  const lowAt = bits === 5 ? highAt + 32 : highAt;
  for (let group = 0; group < 8; group++) {
    const scale = ranges.scaleStep * ranges.scales[group];
    const minimum = ranges.minimumStep * ranges.minima[group];
    for (let i = 0; i < 32; i++) {
      const level = clampRound(quotient(values[32 * group + i] + minimum, scale), 0, levels);
      const byteAt = lowAt + 32 * (group >> 1) + i;
      view.setUint8(byteAt, view.getUint8(byteAt) | ((level & 15) << (4 * (group & 1))));
      if (bits === 5) view.setUint8(highAt + i, view.getUint8(highAt + i) | ((level >> 4) << group));
    }
  }
}

const ENCODERS: Readonly<Record<DType, BlockEncoder>> = {
  F32: ([value], view, at) => view.setFloat32(at, value, true),
  F16: ([value], view, at) => view.setFloat16(at, value, true),
  BF16([value], view, at) {
    const bits = new DataView(new ArrayBuffer(4));
    bits.setFloat32(0, value);
    const word = bits.getUint32(0);
    // Round half to even.
    view.setUint16(at, (word + 0x7fff + ((word >>> 16) & 1)) >>> 16, true);
  },
  Q8_0(values, view, at) {
    const scale = roundToF16(Math.max(...values.map(Math.abs)) / 127);
    view.setFloat16(at, scale, true);
    values.forEach((value, i) => view.setInt8(at + 2 + i, clampRound(quotient(value, scale), -127, 127)));
  },
  Q4_0(values, view, at) {
    const extreme = values.reduce((most, value) => Math.abs(value) > Math.abs(most) ? value : most, 0);
    const scale = roundToF16(extreme / -8);
    view.setFloat16(at, scale, true);
    const level = (i: number) => clampRound(quotient(values[i], scale) + 8, 0, 15);
    for (let i = 0; i < 16; i++) view.setUint8(at + 2 + i, level(i) | (level(i + 16) << 4));
  },
  Q4_1(values, view, at) {
    const minimum = roundToF16(Math.min(...values));
    const scale = roundToF16((Math.max(...values) - minimum) / 15);
    view.setFloat16(at, scale, true);
    view.setFloat16(at + 2, minimum, true);
    const level = (i: number) => clampRound(quotient(values[i] - minimum, scale), 0, 15);
    for (let i = 0; i < 16; i++) view.setUint8(at + 4 + i, level(i) | (level(i + 16) << 4));
  },
  Q4_K: (values, view, at) => encodeGrouped(values, view, at, 4),
  Q5_K: (values, view, at) => encodeGrouped(values, view, at, 5),
  Q6_K(values, view, at) {
    const scales = Array.from({ length: 16 }, (_, group) => {
      const part = values.subarray(16 * group, 16 * group + 16);
      return part.reduce((most, value) => Math.abs(value) > Math.abs(most) ? value : most, 0) / -32;
    });
    const extreme = scales.reduce((most, scale) => Math.abs(scale) > Math.abs(most) ? scale : most, 0);
    const step = roundToF16(extreme / -128);
    view.setFloat16(at + 208, step, true);
    const stored = scales.map((scale) => clampRound(quotient(scale, step), -128, 127));
    stored.forEach((scale, group) => view.setInt8(at + 192 + group, scale));
    for (let i = 0; i < 256; i++) {
      const level = clampRound(quotient(values[i], step * stored[i >> 4]) + 32, 0, 63);
      const quarter = (i >> 5) & 3;
      const lowAt = at + 64 * (i >> 7) + 32 * (quarter & 1) + (i & 31);
      view.setUint8(lowAt, view.getUint8(lowAt) | ((level & 15) << (4 * (quarter >> 1))));
      const highAt = at + 128 + 32 * (i >> 7) + (i & 31);
      view.setUint8(highAt, view.getUint8(highAt) | ((level >> 4) << (2 * quarter)));
    }
  },
};

/**
 * Stored bytes of `values`, rows one after the other.
 *
 * @throws {RangeError} when `values` is not a whole number of blocks.
 */
export function quantize(dtype: DType, values: Float32Array): Uint8Array {
  const layout = DTYPE_LAYOUT[dtype];
  const blocks = values.length / layout.elements;
  if (!Number.isInteger(blocks)) {
    throw new RangeError(`Cannot quantise to ${dtype}: wanted a multiple of ${layout.elements}, got ${values.length}`);
  }
  const bytes = new Uint8Array(blocks * layout.bytes);
  const view = new DataView(bytes.buffer);
  for (let block = 0; block < blocks; block++) {
    const part = values.subarray(block * layout.elements, (block + 1) * layout.elements);
    ENCODERS[dtype](part, view, block * layout.bytes);
  }
  return bytes;
}
