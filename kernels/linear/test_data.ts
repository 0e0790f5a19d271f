/**
 * Random weights and inputs for the tests and benches of the linear kernel.
 *
 * @module
 */
import { type DType, DTYPE_LAYOUT } from "../dtype.ts";

/** Where the f16 scales lie in a stored block. */
const SCALE_OFFSETS: Readonly<Record<DType, readonly number[]>> = {
  F32: [],
  F16: [0],
  BF16: [],
  Q8_0: [0],
  Q4_0: [0],
  Q4_1: [0, 2],
  Q4_K: [0, 2],
  Q5_K: [0, 2],
  Q6_K: [208],
};

/** A generator of uniform numbers in [0, 1): 32-bit xorshift. */
function uniform(seed: number): () => number {
  let state = Math.imul(seed + 1, 0x9e3779b9) | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

/**
 * `bytes` bytes of stored weights: random quants, scales of both signs between 0.001 and 0.1, some of them subnormal in
 * f16. With `quants` "largest", every quant has all bits set.
 */
export function randomWeights(
  dtype: DType,
  bytes: number,
  seed: number,
  quants: "random" | "largest" = "random",
): Uint8Array<ArrayBuffer> {
  const next = uniform(seed);
  const out = new Uint8Array(bytes);
  const view = new DataView(out.buffer);
  for (let at = 0; at < bytes; at++) out[at] = quants === "largest" ? 255 : next() * 256;
  const scale = (): number => (next() < 0.05 ? 1e-5 : 0.001 + 0.1 * next()) * (next() < 0.5 ? -1 : 1);
  const block = DTYPE_LAYOUT[dtype].bytes;
  for (let at = 0; at < bytes; at += block) {
    for (const offset of SCALE_OFFSETS[dtype]) view.setFloat16(at + offset, scale(), true);
    if (dtype === "F32") view.setFloat32(at, scale(), true);
    if (dtype === "BF16") {
      view.setFloat32(0, scale(), true);
      view.setUint16(at, view.getUint16(2, true), true);
    }
  }
  return out;
}

/**
 * `count` inputs of about unit size, a share of them ten times as large. In language models about 0.6 % are, which makes
 * 2.4 % of the groups of four hot.
 */
export function randomInputs(count: number, seed: number, outliers = 0.02): Float32Array<ArrayBuffer> {
  const next = uniform(seed);
  return Float32Array.from({ length: count }, () => (next() + next() + next() - 1.5) * (next() < outliers ? 20 : 2));
}
