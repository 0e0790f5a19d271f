/**
 * Tiny models with random weights as GGUF files.
 *
 * @module
 */
import type { DType } from "../../kernels/dtype.ts";
import { ropeConfig, yarnAttentionFactor } from "../../runtime/model/rope.ts";
import { type GgufEntry, type GgufTensor, writeGguf } from "./gguf_writer.ts";
import { quantize } from "./quantize.ts";
import { type FullSpec, makeWeights, type SyntheticSpec, type Weight, withDefaults } from "./spec.ts";
import { CHAT_TEMPLATE, syntheticTokenizer } from "./tokenizer.ts";

/** Rows of each head from halves order (pair i is rows i and i + n/2) to adjacent order (rows 2i and 2i + 1). */
function toAdjacentPairs({ values, shape, rotatedHeads = 0 }: Weight, spec: FullSpec): Float32Array {
  const { headDim, ropeDimensions } = spec;
  const cols = shape.length === 1 ? 1 : shape[1];
  const out = values.slice();
  for (let head = 0; head < rotatedHeads; head++) {
    for (let row = 0; row < ropeDimensions; row++) {
      const from = head * headDim + (row % 2 === 0 ? row / 2 : (row - 1 + ropeDimensions) / 2);
      out.set(values.subarray(from * cols, (from + 1) * cols), (head * headDim + row) * cols);
    }
  }
  return out;
}

const GGUF_TENSOR_TYPE: Readonly<Record<DType, number>> = {
  F32: 0,
  F16: 1,
  Q4_0: 2,
  Q4_1: 3,
  Q8_0: 8,
  Q4_K: 12,
  Q5_K: 13,
  Q6_K: 14,
  BF16: 30,
};

/** A synthetic model as a GGUF file. @throws {RangeError} when the vocabulary is too small. */
export function buildSyntheticGguf(init: SyntheticSpec = {}): Uint8Array {
  const spec = withDefaults(init);
  const tensors: GgufTensor[] = makeWeights(spec).map((weight) => ({
    name: weight.gguf,
    dimensions: weight.shape.toReversed(),
    type: GGUF_TENSOR_TYPE[weight.dtype],
    data: quantize(weight.dtype, toAdjacentPairs(weight, spec)),
  }));
  if (spec.rope.kind === "llama3") {
    const divisors = llama3Divisors(spec);
    tensors.push({
      name: "rope_freqs.weight",
      dimensions: [divisors.length],
      type: GGUF_TENSOR_TYPE.F32,
      data: quantize("F32", divisors),
    });
  }
  return writeGguf({ metadata: ggufMetadata(spec), tensors });
}

/** GGUF has no name for llama3 scaling: its converter writes what each frequency is divided by. */
function llama3Divisors({ ropeDimensions: dimensions, theta, rope }: FullSpec): Float32Array {
  const plain = ropeConfig({ dimensions, theta, pairing: "adjacent" }).inverseFrequencies;
  const scaled = ropeConfig({ dimensions, theta, pairing: "adjacent", scaling: rope }).inverseFrequencies;
  return Float32Array.from(plain, (frequency, pair) => frequency / scaled[pair]);
}

/** Metadata of a model of these sizes, with a tokenizer. @throws {RangeError} when the vocabulary is too small. */
export function ggufMetadata(spec: FullSpec): [string, GgufEntry][] {
  const { tokens, types, merges } = syntheticTokenizer(spec.vocab);
  const u32 = (value: number): GgufEntry => ({ type: "u32", value });
  const f32 = (value: number): GgufEntry => ({ type: "f32", value });
  const string = (value: string): GgufEntry => ({ type: "string", value });
  const { rope } = spec;
  const scaling: [string, GgufEntry][] = rope.kind === "linear" || rope.kind === "yarn"
    ? [["llama.rope.scaling.type", string(rope.kind)], ["llama.rope.scaling.factor", f32(rope.factor)]]
    : [];
  if (rope.kind === "yarn") {
    scaling.push(["llama.rope.scaling.original_context_length", u32(rope.originalContext)]);
    if (rope.betaFast !== undefined) scaling.push(["llama.rope.scaling.yarn_beta_fast", f32(rope.betaFast)]);
    if (rope.betaSlow !== undefined) scaling.push(["llama.rope.scaling.yarn_beta_slow", f32(rope.betaSlow)]);
    if (rope.attentionFactor !== undefined) {
      const extra = rope.attentionFactor / yarnAttentionFactor(rope.factor);
      scaling.push(["llama.rope.scaling.attn_factor", f32(extra)]);
    }
  }
  return [
    ["general.architecture", string("llama")],
    ["general.name", string("synthetic")],
    ["llama.block_count", u32(spec.layers)],
    ["llama.context_length", u32(spec.contextLength)],
    ["llama.embedding_length", u32(spec.hidden)],
    ["llama.feed_forward_length", u32(spec.intermediate)],
    ["llama.attention.head_count", u32(spec.heads)],
    ["llama.attention.head_count_kv", u32(spec.kvHeads)],
    ["llama.attention.key_length", u32(spec.headDim)],
    ["llama.attention.value_length", u32(spec.headDim)],
    ["llama.attention.layer_norm_rms_epsilon", f32(spec.normEps)],
    ["llama.rope.freq_base", f32(spec.theta)],
    ["llama.rope.dimension_count", u32(spec.ropeDimensions)],
    ["llama.vocab_size", u32(spec.vocab)],
    ...scaling,
    ["tokenizer.ggml.model", string("gpt2")],
    ["tokenizer.ggml.pre", string("smollm")],
    ["tokenizer.ggml.tokens", { type: "array", of: "string", value: tokens }],
    ["tokenizer.ggml.token_type", { type: "array", of: "i32", value: types }],
    ["tokenizer.ggml.merges", { type: "array", of: "string", value: merges }],
    ["tokenizer.ggml.bos_token_id", u32(1)],
    ["tokenizer.ggml.eos_token_id", u32(2)],
    ["tokenizer.ggml.add_bos_token", { type: "bool", value: false }],
    ["tokenizer.chat_template", string(CHAT_TEMPLATE)],
  ];
}
