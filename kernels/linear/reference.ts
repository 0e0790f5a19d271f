/**
 * The slow, obvious linear kernel: dequantise, then sum in f64.
 *
 * @module
 */
import { type ActivationType, type DType, DTYPE_LAYOUT } from "../dtype.ts";
import { HOT_FACTOR, type IntegerInput } from "./spec.ts";

const HALF = new DataView(new ArrayBuffer(2));

function half(bits: number): number {
  HALF.setUint16(0, bits);
  return HALF.getFloat16(0);
}

function signed(byte: number): number {
  return byte << 24 >> 24;
}

/** A block's weights as scale * integer (+ minimum, where the type has one), before any rounding. */
type Emit = (index: number, scale: number, integer: number, minimum?: number) => void;

function scaleAndMin(packed: Uint8Array, sub: number): [number, number] {
  if (sub < 4) return [packed[sub] & 63, packed[sub + 4] & 63];
  return [
    packed[sub + 4] & 15 | packed[sub - 4] >> 6 << 4,
    packed[sub + 4] >> 4 | packed[sub] >> 6 << 4,
  ];
}

function decodeKQuant(block: Uint8Array, high: Uint8Array | undefined, quants: Uint8Array, emit: Emit): void {
  const view = new DataView(block.buffer, block.byteOffset);
  const [d, dmin] = [half(view.getUint16(0, true)), half(view.getUint16(2, true))];
  for (let i = 0; i < 256; i++) {
    const sub = i >> 5;
    const [scale, min] = scaleAndMin(block.subarray(4, 16), sub);
    const byte = quants[(sub >> 1) * 32 + (i & 31)];
    const nibble = sub & 1 ? byte >> 4 : byte & 15;
    const fifth = high === undefined ? 0 : (high[i & 31] >> sub & 1) << 4;
    emit(i, d * scale, nibble + fifth, -dmin * min);
  }
}

function decodeBlock(dtype: DType, block: Uint8Array, emit: Emit): void {
  const view = new DataView(block.buffer, block.byteOffset);
  const f16 = (at: number): number => half(view.getUint16(at, true));
  switch (dtype) {
    case "F32":
      return emit(0, view.getFloat32(0, true), 1);
    case "F16":
      return emit(0, f16(0), 1);
    case "BF16": {
      const wide = new DataView(new ArrayBuffer(4));
      wide.setUint16(2, view.getUint16(0, true), true);
      return emit(0, wide.getFloat32(0, true), 1);
    }
    case "Q8_0":
      for (let i = 0; i < 32; i++) emit(i, f16(0), signed(block[2 + i]));
      return;
    case "Q4_0":
      for (let i = 0; i < 32; i++) emit(i, f16(0), (block[2 + (i & 15)] >> (i & 16 ? 4 : 0) & 15) - 8);
      return;
    case "Q4_1":
      for (let i = 0; i < 32; i++) emit(i, f16(0), block[4 + (i & 15)] >> (i & 16 ? 4 : 0) & 15, f16(2));
      return;
    case "Q4_K":
      return decodeKQuant(block, undefined, block.subarray(16), emit);
    case "Q5_K":
      return decodeKQuant(block, block.subarray(16, 48), block.subarray(48), emit);
    case "Q6_K":
      for (let i = 0; i < 256; i++) {
        const [part, quarter, l] = [i >> 7, i >> 5 & 3, i & 31];
        const low = block[64 * part + 32 * (quarter & 1) + l] >> (quarter & 2 ? 4 : 0) & 15;
        const high = block[128 + 32 * part + l] >> 2 * quarter & 3;
        emit(i, f16(208) * signed(block[192 + (i >> 4)]), (low | high << 4) - 32);
      }
      return;
    default:
      dtype satisfies never;
  }
}

/** Weights of a stored row: `value` rounded to f32 as the model format's reference does, `reach` = |scale * integer| + |minimum|. */
export interface DecodedRow {
  /** Dequantised weights. */
  readonly value: Float32Array;
  /** Magnitude of the parts a weight is summed from, for error bounds. */
  readonly reach: Float64Array;
}

/** Dequantises one stored row of `cols` weights. */
export function decodeRow(dtype: DType, stored: Uint8Array, cols: number): DecodedRow {
  const { elements, bytes } = DTYPE_LAYOUT[dtype];
  const value = new Float32Array(cols);
  const reach = new Float64Array(cols);
  for (let block = 0; block < cols / elements; block++) {
    decodeBlock(dtype, stored.subarray(block * bytes, (block + 1) * bytes), (index, scale, integer, minimum) => {
      const product = Math.fround(Math.fround(scale) * integer);
      value[block * elements + index] = minimum === undefined ? product : product + Math.fround(minimum);
      // The kernel keeps Q4_0 and Q6_K unsigned, with the offset in the minimum.
      const offset = dtype === "Q4_0" ? 16 : dtype === "Q6_K" ? 64 : 0;
      reach[block * elements + index] = Math.abs(scale) * (Math.abs(integer) + offset) + Math.abs(minimum ?? 0);
    });
  }
  return { value, reach };
}

/** The integers that inputs become; undefined where they stay f32. */
export function integerInput(
  dtype: DType,
  activations: ActivationType,
  input: IntegerInput,
): IntegerInput | undefined {
  if (activations === "f32" || dtype === "F32" || dtype === "F16" || dtype === "BF16") return undefined;
  return dtype === "Q8_0" ? "i16" : input;
}

function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || rest === 0.5 && floor % 2 !== 0 ? floor + 1 : floor;
}

function largest(x: Float32Array): number {
  return x.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}

/** Rounds `x` to integers of at most `top`, times a scale, in f32 as the kernel does. */
function rounded(x: Float32Array, top: number): Float64Array {
  const most = largest(x);
  const scale = Math.fround(most * Math.fround(1 / top));
  const inverse = scale > 1.1754943508222875e-38 ? Math.fround(top / most) : 0;
  return Float64Array.from(x, (value) => roundHalfEven(Math.fround(value * inverse)) * scale);
}

function pieces(x: Float32Array, size: number): Float32Array[] {
  return Array.from({ length: Math.ceil(x.length / size) }, (_, i) => x.subarray(i * size, (i + 1) * size));
}

/** Limit on a group's largest magnitude above which it is hot. */
function hotLimit(x: Float32Array): number {
  const blocks = pieces(x, 32);
  const sum = blocks.reduce((total, block) => Math.fround(total + largest(block)), 0);
  return Math.fround(HOT_FACTOR * Math.fround(sum / blocks.length));
}

/** A row of inputs as the integers of `input` times their scales. */
export function roundInputs(x: Float32Array, input: IntegerInput): Float64Array {
  const rest = x.slice();
  const out = new Float64Array(x.length);
  if (input === "hot") {
    const limit = hotLimit(x);
    pieces(x, 4).forEach((group, i) => {
      if (largest(group) <= limit) return;
      rounded(group, 127).forEach((value, j) => {
        out[4 * i + j] = value;
        rest[4 * i + j] = group[j] - value;
      });
    });
  }
  pieces(rest, 32).forEach((block, i) => {
    rounded(block, input === "i16" ? 32767 : 127).forEach((value, j) => out[32 * i + j] += value);
  });
  return out;
}

/** What {@linkcode linearReference} multiplies. Axes: R rows, K columns, T tokens. */
export interface ReferenceProduct {
  /** Type of the weights. */
  readonly dtype: DType;
  /** Weights [R, K] as stored. */
  readonly weights: Uint8Array;
  /** R. */
  readonly rows: number;
  /** K. */
  readonly cols: number;
  /** Inputs [T, K]. */
  readonly x: Float32Array;
  /** Input type. */
  readonly activations: ActivationType;
  /** Representation of integer inputs. @default {"hot"} */
  readonly input?: IntegerInput;
}

/** Result [T, R] and, per element, sum over k of (|d * q| + |m|) * |x|: what the tolerance is a share of. */
export interface ReferenceResult {
  /** The products. */
  readonly out: Float64Array;
  /** Scale of the rounding errors of each product. */
  readonly reach: Float64Array;
}

/** The product with (rounded) inputs, summed in f64. */
export function linearReference(product: ReferenceProduct): ReferenceResult {
  const { dtype, weights, rows, cols, x, activations } = product;
  const tokens = x.length / cols;
  const rowBytes = weights.length / rows;
  const form = integerInput(dtype, activations, product.input ?? "hot");
  const inputs = Array.from({ length: tokens }, (_, t) => {
    const row = x.subarray(t * cols, (t + 1) * cols);
    return form === undefined ? Float64Array.from(row) : roundInputs(row, form);
  });
  const out = new Float64Array(tokens * rows);
  const reach = new Float64Array(tokens * rows);
  for (let r = 0; r < rows; r++) {
    const row = decodeRow(dtype, weights.subarray(r * rowBytes, (r + 1) * rowBytes), cols);
    for (let t = 0; t < tokens; t++) {
      let sum = 0;
      let magnitude = 0;
      for (let k = 0; k < cols; k++) {
        sum += row.value[k] * inputs[t][k];
        magnitude += row.reach[k] * Math.abs(inputs[t][k]);
      }
      out[t * rows + r] = sum;
      reach[t * rows + r] = magnitude;
    }
  }
  return { out, reach };
}
