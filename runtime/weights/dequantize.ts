/**
 * Reference dequantisation of every weight type: the values that the format's own implementation (ggml) computes, bit
 * for bit. Every product below is exact in f64 and the one sum is rounded once to f32, as in f32 arithmetic.
 *
 * @module
 */
import { type DType, DTYPE_LAYOUT } from "../../kernels/dtype.ts";

/** Values of one block: reads at byte `at` of `view`, writes from `out[to]` on. */
type BlockDecoder = (view: DataView, at: number, out: Float32Array, to: number) => void;

/** Six-bit scale and minimum `index` of a Q4_K or Q5_K block; the twelve packed bytes begin at `at`. */
function packedScale(view: DataView, at: number, index: number): { scale: number; minimum: number } {
  if (index < 4) {
    return { scale: view.getUint8(at + index) & 63, minimum: view.getUint8(at + index + 4) & 63 };
  }
  const low = view.getUint8(at + index + 4);
  return {
    scale: (low & 15) | ((view.getUint8(at + index - 4) >> 6) << 4),
    minimum: (low >> 4) | ((view.getUint8(at + index) >> 6) << 4),
  };
}

const DECODERS: Readonly<Record<DType, BlockDecoder>> = {
  F32(view, at, out, to) {
    out[to] = view.getFloat32(at, true);
  },
  F16(view, at, out, to) {
    out[to] = view.getFloat16(at, true);
  },
  BF16(view, at, out, to) {
    const bits = new DataView(out.buffer, out.byteOffset + 4 * to, 4);
    bits.setUint32(0, view.getUint16(at, true) << 16, true);
  },
  Q8_0(view, at, out, to) {
    const scale = view.getFloat16(at, true);
    for (let i = 0; i < 32; i++) out[to + i] = scale * view.getInt8(at + 2 + i);
  },
  Q4_0(view, at, out, to) {
    const scale = view.getFloat16(at, true);
    for (let i = 0; i < 16; i++) {
      const pair = view.getUint8(at + 2 + i);
      out[to + i] = scale * ((pair & 15) - 8);
      out[to + i + 16] = scale * ((pair >> 4) - 8);
    }
  },
  Q4_1(view, at, out, to) {
    const scale = view.getFloat16(at, true);
    const minimum = view.getFloat16(at + 2, true);
    for (let i = 0; i < 16; i++) {
      const pair = view.getUint8(at + 4 + i);
      out[to + i] = scale * (pair & 15) + minimum;
      out[to + i + 16] = scale * (pair >> 4) + minimum;
    }
  },
  Q4_K(view, at, out, to) {
    const scale = view.getFloat16(at, true);
    const minimum = view.getFloat16(at + 2, true);
    for (let group = 0; group < 8; group++) {
      const packed = packedScale(view, at + 4, group);
      const groupScale = scale * packed.scale;
      const groupMinimum = minimum * packed.minimum;
      const quants = at + 16 + 32 * (group >> 1);
      const shift = 4 * (group & 1);
      for (let i = 0; i < 32; i++) {
        out[to + 32 * group + i] = groupScale * ((view.getUint8(quants + i) >> shift) & 15) - groupMinimum;
      }
    }
  },
  Q5_K(view, at, out, to) {
    const scale = view.getFloat16(at, true);
    const minimum = view.getFloat16(at + 2, true);
    for (let group = 0; group < 8; group++) {
      const packed = packedScale(view, at + 4, group);
      const groupScale = scale * packed.scale;
      const groupMinimum = minimum * packed.minimum;
      const quants = at + 48 + 32 * (group >> 1);
      const shift = 4 * (group & 1);
      for (let i = 0; i < 32; i++) {
        const high = (view.getUint8(at + 16 + i) >> group) & 1;
        const value = ((view.getUint8(quants + i) >> shift) & 15) + 16 * high;
        out[to + 32 * group + i] = groupScale * value - groupMinimum;
      }
    }
  },
  Q6_K(view, at, out, to) {
    const scale = view.getFloat16(at + 208, true);
    for (let i = 0; i < 256; i++) {
      // Each half of 128 values has 64 bytes of low nibbles and 32 bytes of high bit pairs.
      const half = i >> 7;
      const quarter = (i >> 5) & 3;
      const lane = i & 31;
      const low = view.getUint8(at + 64 * half + 32 * (quarter & 1) + lane) >> (4 * (quarter >> 1));
      const high = view.getUint8(at + 128 + 32 * half + lane) >> (2 * quarter);
      out[to + i] = scale * view.getInt8(at + 192 + (i >> 4)) * (((low & 15) | ((high & 3) << 4)) - 32);
    }
  },
};

/**
 * Values of `bytes`, whole blocks of `dtype` (a row, or several one after the other).
 *
 * @param into Where to write, as long as the row; a new array by default.
 * @throws {RangeError} when `bytes` is not a whole number of blocks or `into` has another length.
 */
export function dequantizeRow(dtype: DType, bytes: Uint8Array, into?: Float32Array): Float32Array {
  const layout = DTYPE_LAYOUT[dtype];
  const blocks = bytes.length / layout.bytes;
  if (!Number.isInteger(blocks)) {
    throw new RangeError(
      `Cannot dequantise ${dtype}: wanted whole blocks of ${layout.bytes} bytes, got ${bytes.length}`,
    );
  }
  const out = into ?? new Float32Array(blocks * layout.elements);
  if (out.length !== blocks * layout.elements) {
    throw new RangeError(
      `Cannot dequantise ${dtype}: ${blocks * layout.elements} values do not fit into ${out.length}`,
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const decode = DECODERS[dtype];
  for (let block = 0; block < blocks; block++) {
    decode(view, block * layout.bytes, out, block * layout.elements);
  }
  return out;
}
