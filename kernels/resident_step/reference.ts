/**
 * resident_step in plain TypeScript: the layers of a model for one new token of each sequence, in f64, with the inputs of
 * products, queries, keys and values rounded to bf16 as the kernel does.
 *
 * @module
 */
import { roundBf16 } from "../cuda/test_gpu.ts";
import type { ResidentShape } from "./resident_layout.ts";

/** Weights of a layer, row-major [out, in]. */
export interface ReferenceLayer {
  /** [hidden] */
  readonly attentionNorm: Float32Array;
  /** [(heads + 2 kvHeads) headDim, hidden] */
  readonly qkv: Float32Array;
  /** [hidden, heads headDim] */
  readonly output: Float32Array;
  /** [hidden] */
  readonly mlpNorm: Float32Array;
  /** [2 intermediate, hidden] */
  readonly gateUp: Float32Array;
  /** [hidden, intermediate] */
  readonly down: Float32Array;
}

/** A token and what came before it. */
export interface ReferenceToken {
  /** Its row of the embedding, [hidden]. */
  readonly embedding: Float32Array;
  /** Its position. */
  readonly position: number;
  /** Key (0) or value (1) `dim` of an earlier token. */
  readonly stored: (layer: number, kvHead: number, side: 0 | 1, token: number, dim: number) => number;
}

/** What a step leaves of a token. */
export interface ReferenceResult {
  /** Residual stream behind the last layer, [hidden]. */
  readonly residual: Float64Array;
  /** Key, then value of each layer and KV head, [layers, kvHeads, 2, headDim]. */
  readonly keyValues: Float64Array;
}

/** One step of one token. */
export function residentStepReference(
  token: ReferenceToken,
  { shape, layers, normEps, inverseFrequencies }: {
    readonly shape: ResidentShape;
    readonly layers: readonly ReferenceLayer[];
    readonly normEps: number;
    readonly inverseFrequencies: Float64Array;
  },
): ReferenceResult {
  const { heads, kvHeads, headDim, intermediate } = shape;
  const residual = Float64Array.from(token.embedding);
  const keyValues = new Float64Array(layers.length * kvHeads * 2 * headDim);
  layers.forEach((layer, index) => {
    const qkv = multiply(layer.qkv, normalize(residual, layer.attentionNorm, normEps));
    for (let head = 0; head < heads + kvHeads; head++) {
      rotate(qkv.subarray(head * headDim, (head + 1) * headDim), { token, shape, inverseFrequencies });
    }
    const rounded = qkv.map(roundBf16);
    const newest = (kvHead: number, side: number, dim: number) =>
      rounded[(heads + side * kvHeads + kvHead) * headDim + dim];
    for (let i = 0; i < kvHeads * 2 * headDim; i++) {
      const [kvHead, side, dim] = [Math.floor(i / headDim / 2), Math.floor(i / headDim) % 2, i % headDim];
      keyValues[index * kvHeads * 2 * headDim + i] = newest(kvHead, side, dim);
    }
    const attended = new Float64Array(heads * headDim);
    for (let head = 0; head < heads; head++) {
      const kvHead = Math.floor(head * kvHeads / heads);
      const at = (side: 0 | 1, earlier: number, dim: number) =>
        earlier === token.position ? newest(kvHead, side, dim) : token.stored(index, kvHead, side, earlier, dim);
      const query = rounded.subarray(head * headDim, (head + 1) * headDim);
      const scores = Float64Array.from(
        { length: token.position + 1 },
        (_, earlier) => query.reduce((sum, value, dim) => sum + value * at(0, earlier, dim), 0) / Math.sqrt(headDim),
      );
      const most = scores.reduce((a, b) => Math.max(a, b));
      const weights = scores.map((score) => Math.exp(score - most));
      const sum = weights.reduce((a, b) => a + b);
      for (let dim = 0; dim < headDim; dim++) {
        const value = weights.reduce((total, weight, earlier) => total + weight * at(1, earlier, dim), 0);
        attended[head * headDim + dim] = roundBf16(value / sum);
      }
    }
    add(residual, multiply(layer.output, attended));
    const gateUp = multiply(layer.gateUp, normalize(residual, layer.mlpNorm, normEps));
    const gated = Float64Array.from(
      { length: intermediate },
      (_, i) => roundBf16(gateUp[i] / (1 + Math.exp(-gateUp[i])) * gateUp[intermediate + i]),
    );
    add(residual, multiply(layer.down, gated));
  });
  return { residual, keyValues };
}

/** Rounded x * gain, and then the scale of the norm. */
function normalize(x: Float64Array, gain: Float32Array, eps: number): Float64Array {
  const scale = 1 / Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / x.length + eps);
  return x.map((value, i) => roundBf16(value * gain[i]) * scale);
}

function multiply(weights: Float32Array, x: Float64Array): Float64Array {
  return Float64Array.from({ length: weights.length / x.length }, (_, row) => {
    let sum = 0;
    for (let i = 0; i < x.length; i++) sum += weights[row * x.length + i] * x[i];
    return sum;
  });
}

function add(to: Float64Array, from: Float64Array): void {
  from.forEach((value, i) => to[i] += value);
}

function rotate(
  head: Float64Array,
  { token: { position }, shape: { pairs, pairing }, inverseFrequencies }: {
    readonly token: ReferenceToken;
    readonly shape: ResidentShape;
    readonly inverseFrequencies: Float64Array;
  },
): void {
  for (let pair = 0; pair < pairs; pair++) {
    const [first, second] = pairing === "halves" ? [pair, pair + pairs] : [2 * pair, 2 * pair + 1];
    const angle = position * inverseFrequencies[pair];
    const [a, b] = [head[first], head[second]];
    head[first] = a * Math.cos(angle) - b * Math.sin(angle);
    head[second] = b * Math.cos(angle) + a * Math.sin(angle);
  }
}
