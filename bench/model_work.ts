/**
 * What a step of a model must read and multiply, and the rate that the machine's ceilings allow for it.
 *
 * @module
 */
import type { KvType } from "../kernels/dtype.ts";
import { kvTokenBytes } from "../runtime/device/kv_size.ts";
import type { ModelConfig, ModelWeights } from "../runtime/model/model.ts";

/** Work of a model. MAC: one multiplication and addition. */
export interface ModelWork {
  /** Stored bytes of the weights that every step reads: all layers, the last norm and the head. */
  readonly weightBytes: number;
  /** MACs of the layers' matrices for one token. */
  readonly layerMacs: number;
  /** MACs of the head for one row of logits. */
  readonly headMacs: number;
  /** MACs of attention for one pair of query and key position, all layers and heads. */
  readonly attentionMacs: number;
  /** Bytes of keys and values of one token. */
  readonly kvTokenBytes: number;
}

/** Work of a model whose KV pool holds `kvType`. */
export function modelWork(
  model: { readonly config: ModelConfig; readonly weights: ModelWeights },
  kvType: KvType,
): ModelWork {
  const { config, weights } = model;
  const matrices = weights.layers.flatMap((l) => [l.query, l.key, l.value, l.output, l.gate, l.up, l.down]);
  const tensors = new Set([
    ...weights.layers.flatMap((layer) => Object.values(layer)),
    weights.outputNorm,
    weights.head,
  ]);
  return {
    weightBytes: [...tensors].reduce((sum, { bytes }) => sum + bytes, 0),
    layerMacs: matrices.reduce((sum, { rows, cols }) => sum + rows * cols, 0),
    headMacs: weights.head.rows * weights.head.cols,
    attentionMacs: 2 * config.layers * config.heads * config.headDim,
    kvTokenBytes: kvTokenBytes(config, kvType),
  };
}

/** Tokens a second when one sequence reads weights and `contextTokens` of KV a step at `bytesPerSecond`. */
export function decodeCeiling(
  work: ModelWork,
  contextTokens: number,
  { bytesPerSecond }: { bytesPerSecond: number },
): number {
  return bytesPerSecond / (work.weightBytes + work.kvTokenBytes * contextTokens);
}

/**
 * Tokens a second of a prompt of `tokens` tokens with one row of logits: weight MACs at `dotMacs` a second, causal
 * attention MACs at `f32Macs` a second.
 */
export function prefillCeiling(
  work: ModelWork,
  tokens: number,
  { dotMacs, f32Macs }: { dotMacs: number; f32Macs: number },
): number {
  const pairs = tokens * (tokens + 1) / 2;
  return tokens / ((work.layerMacs * tokens + work.headMacs) / dotMacs + work.attentionMacs * pairs / f32Macs);
}

/** Tokens a second when every token needs all weight MACs, at `dotMacs` a second. */
export function batchCeiling(work: ModelWork, { dotMacs }: { dotMacs: number }): number {
  return dotMacs / (work.layerMacs + work.headMacs);
}
