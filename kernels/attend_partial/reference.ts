/**
 * The slow, obvious answer, in f64.
 *
 * @module
 */
import type { KvType } from "../dtype.ts";
import { e4m3Bits, e4m3Value } from "../e4m3.ts";
import type { AttentionPartial } from "../merge_partials/spec.ts";
import { type AttendPartialInput, checkAttend } from "./spec.ts";

const MAX_F16 = 65504;
/** Largest finite bf16, 0x7f7f. */
const MAX_BF16 = 3.3895313892515355e38;

/** `value` as a pool of type `kvType` stores it: nearest, ties to even, clamped to the largest finite value. */
export function roundKv(value: number, kvType: KvType): number {
  switch (kvType) {
    case "f32":
      return Math.fround(value);
    case "f16":
      return Math.f16round(Math.max(-MAX_F16, Math.min(MAX_F16, Math.fround(value))));
    case "bf16": {
      const clamped = Math.max(-MAX_BF16, Math.min(MAX_BF16, Math.fround(value)));
      const view = new DataView(new ArrayBuffer(4));
      view.setFloat32(0, clamped);
      const bits = view.getUint32(0);
      view.setUint32(0, bits + 0x7fff + ((bits >>> 16) & 1) & 0xffff0000);
      return view.getFloat32(0);
    }
    case "fp8":
      return e4m3Value(e4m3Bits(Math.fround(value)));
  }
}

/**
 * Partial attention: see the formula of the spec.
 *
 * @throws {RangeError} when an axis does not match or a number is out of range.
 */
export function attendPartialReference(input: AttendPartialInput, kvType: KvType = "f32"): AttentionPartial {
  const { queries, length, group, start } = checkAttend(input);
  const { heads, kvHeads, headDim, q } = input;
  const k = Float64Array.from(input.k, (value) => roundKv(value, kvType));
  const v = Float64Array.from(input.v, (value) => roundKv(value, kvType));
  const scale = 1 / Math.sqrt(headDim);
  const o = new Float32Array(queries * heads * headDim);
  const lse = new Float32Array(queries * heads).fill(-Infinity);
  for (let t = 0; t < queries; t++) {
    const end = input.firstPosition === undefined ? length : input.firstPosition + t + 1 - start;
    const visible = Math.max(0, Math.min(length, end));
    for (let h = 0; h < heads; h++) {
      const query = (t * heads + h) * headDim;
      const row = (i: number): number => (i * kvHeads + Math.floor(h / group)) * headDim;
      const scores = Array.from({ length: visible }, (_, i) => {
        let dot = 0;
        for (let d = 0; d < headDim; d++) dot += q[query + d] * k[row(i) + d];
        return dot * scale;
      });
      const max = scores.reduce((most, score) => Math.max(most, score), -Infinity);
      if (max === -Infinity) continue;
      const weights = scores.map((score) => Math.exp(score - max));
      const sum = weights.reduce((total, weight) => total + weight, 0);
      lse[t * heads + h] = max + Math.log(sum);
      for (let d = 0; d < headDim; d++) {
        o[query + d] = weights.reduce((total, weight, i) => total + weight * v[row(i) + d], 0) / sum;
      }
    }
  }
  return { o, lse };
}
