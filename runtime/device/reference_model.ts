/**
 * Weights and arithmetic of the reference device, in f64.
 *
 * @module
 */
import type { LayerWeights, ModelConfig, WeightTensor } from "../model/model.ts";
import { readValues } from "../weights/f32_vector.ts";

/** A matrix of exact weights, [rows, cols]. */
export interface Matrix {
  /** Output features. */
  readonly rows: number;
  /** Input features. */
  readonly cols: number;
  /** Row-major. */
  readonly values: Float32Array;
}

/** Weights of one transformer block, as {@linkcode LayerWeights}. */
export type Layer = Record<"query" | "key" | "value" | "output" | "gate" | "up" | "down", Matrix> & {
  readonly attentionNorm: Float32Array;
  readonly mlpNorm: Float32Array;
  readonly queryBias?: Float32Array;
  readonly keyBias?: Float32Array;
  readonly valueBias?: Float32Array;
};

/** All values of a tensor. */
export function matrixOf(tensor: WeightTensor): Matrix {
  return { rows: tensor.rows, cols: tensor.cols, values: readValues(tensor) };
}

/** All values of a block. */
export function layerOf(weights: LayerWeights): Layer {
  const vector = (tensor: WeightTensor | undefined) => tensor === undefined ? undefined : readValues(tensor);
  return {
    attentionNorm: readValues(weights.attentionNorm),
    query: matrixOf(weights.query),
    key: matrixOf(weights.key),
    value: matrixOf(weights.value),
    queryBias: vector(weights.queryBias),
    keyBias: vector(weights.keyBias),
    valueBias: vector(weights.valueBias),
    output: matrixOf(weights.output),
    mlpNorm: readValues(weights.mlpNorm),
    gate: matrixOf(weights.gate),
    up: matrixOf(weights.up),
    down: matrixOf(weights.down),
  };
}

/** y[r] = Σ w[r, k] x[k] + bias[r] */
export function multiply({ rows, cols, values }: Matrix, x: Float64Array, bias?: Float32Array): Float64Array {
  const y = new Float64Array(rows);
  for (let r = 0; r < rows; r++) {
    let sum = 0;
    for (let k = 0; k < cols; k++) sum += values[r * cols + k] * x[k];
    y[r] = sum + (bias?.[r] ?? 0);
  }
  return y;
}

/** x / rms(x) * weight */
export function normalize(x: Float64Array, weight: Float32Array, eps: number): Float64Array {
  const meanSquare = x.reduce((sum, v) => sum + v * v, 0) / x.length;
  const scale = 1 / Math.sqrt(meanSquare + eps);
  return x.map((v, i) => v * scale * weight[i]);
}

/** Rotates each head of `x` in place. */
export function rotate(x: Float64Array, position: number, { rope, headDim }: ModelConfig): void {
  const pairs = rope.dimensions / 2;
  for (let head = 0; head < x.length; head += headDim) {
    for (let i = 0; i < pairs; i++) {
      const angle = position * rope.inverseFrequencies[i];
      const cos = Math.cos(angle) * rope.magnitude;
      const sin = Math.sin(angle) * rope.magnitude;
      const [a, b] = rope.pairing === "halves" ? [head + i, head + i + pairs] : [head + 2 * i, head + 2 * i + 1];
      [x[a], x[b]] = [x[a] * cos - x[b] * sin, x[b] * cos + x[a] * sin];
    }
  }
}
