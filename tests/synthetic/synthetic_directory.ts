/**
 * Tiny models with random weights as Hugging Face directories.
 *
 * @module
 */
import { DTYPE_LAYOUT } from "../../kernels/dtype.ts";
import type { RopeScaling } from "../../runtime/model/rope.ts";
import { quantize } from "./quantize.ts";
import { type SafetensorsTensor, writeSafetensors } from "./safetensors_writer.ts";
import { type FullSpec, makeWeights, type SyntheticSpec, withDefaults } from "./spec.ts";
import { CHAT_TEMPLATE, CONTROL_TOKENS, syntheticTokenizer } from "./tokenizer.ts";

/** How {@linkcode buildSyntheticDirectory} cuts and stores. */
export interface DirectoryOptions {
  /** Weight files. @default {1} */
  readonly shards?: number;
  /** `model_type` of the configuration. @default {"llama"} */
  readonly modelType?: string;
}

/**
 * A synthetic model as the files of a Hugging Face directory, by name. Vectors are stored in the type of the matrices.
 *
 * @throws {RangeError} when the type is not one that safetensors files hold, or the vocabulary is too small.
 */
export function buildSyntheticDirectory(
  init: SyntheticSpec = {},
  { shards = 1, modelType = "llama" }: DirectoryOptions = {},
): Map<string, Uint8Array> {
  const spec = withDefaults(init);
  if (DTYPE_LAYOUT[spec.dtype].elements !== 1) {
    throw new RangeError(`Cannot write safetensors: wanted F32, F16 or BF16, got ${spec.dtype}`);
  }
  const tensors = makeWeights(spec).map((weight): SafetensorsTensor => {
    const dtype = weight.shape.length === 1 ? spec.dtype : weight.dtype;
    return { name: weight.huggingFace, dtype, shape: weight.shape, data: quantize(dtype, weight.values) };
  });
  const files = new Map<string, Uint8Array>();
  const writeJson = (name: string, value: unknown) => files.set(name, new TextEncoder().encode(JSON.stringify(value)));
  writeJson("config.json", hfConfig(spec, modelType));
  writeJson("generation_config.json", { bos_token_id: 1, eos_token_id: 2 });
  writeJson("tokenizer.json", hfTokenizer(spec.vocab));
  writeJson("tokenizer_config.json", {
    bos_token: "<|im_start|>",
    eos_token: "<|im_end|>",
    add_bos_token: false,
    chat_template: CHAT_TEMPLATE,
  });
  if (shards === 1) {
    files.set("model.safetensors", writeSafetensors(tensors));
    return files;
  }
  const label = (index: number) => String(index).padStart(5, "0");
  const weightMap: Record<string, string> = {};
  for (let shard = 0; shard < shards; shard++) {
    const name = `model-${label(shard + 1)}-of-${label(shards)}.safetensors`;
    const part = tensors.filter((_, index) => index % shards === shard);
    for (const tensor of part) weightMap[tensor.name] = name;
    files.set(name, writeSafetensors(part));
  }
  writeJson("model.safetensors.index.json", { metadata: {}, weight_map: weightMap });
  return files;
}

function hfConfig(spec: FullSpec, modelType: string): Record<string, unknown> {
  return {
    model_type: modelType,
    num_hidden_layers: spec.layers,
    hidden_size: spec.hidden,
    num_attention_heads: spec.heads,
    num_key_value_heads: spec.kvHeads,
    head_dim: spec.headDim,
    intermediate_size: spec.intermediate,
    vocab_size: spec.vocab,
    max_position_embeddings: spec.contextLength,
    rms_norm_eps: spec.normEps,
    hidden_act: "silu",
    tie_word_embeddings: spec.tied,
    attention_bias: spec.biases,
    rope_parameters: {
      rope_theta: spec.theta,
      partial_rotary_factor: spec.ropeDimensions / spec.headDim,
      ...hfScaling(spec.rope),
    },
    bos_token_id: 1,
    eos_token_id: 2,
  };
}

function hfScaling(rope: RopeScaling): Record<string, unknown> {
  switch (rope.kind) {
    case "none":
      return { rope_type: "default" };
    case "linear":
      return { rope_type: "linear", factor: rope.factor };
    case "llama3":
      return {
        rope_type: "llama3",
        factor: rope.factor,
        low_freq_factor: rope.lowFrequencyFactor,
        high_freq_factor: rope.highFrequencyFactor,
        original_max_position_embeddings: rope.originalContext,
      };
    case "yarn":
      return {
        rope_type: "yarn",
        factor: rope.factor,
        original_max_position_embeddings: rope.originalContext,
        beta_fast: rope.betaFast,
        beta_slow: rope.betaSlow,
        attention_factor: rope.attentionFactor,
        truncate: rope.truncate,
      };
    default:
      return rope satisfies never;
  }
}

function hfTokenizer(vocab: number): Record<string, unknown> {
  const { tokens, merges } = syntheticTokenizer(vocab);
  return {
    version: "1.0",
    added_tokens: CONTROL_TOKENS.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Digits", individual_digits: true },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
      ],
    },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: merges.map((merge) => merge.split(" ")),
    },
  };
}

/** Writes the files of {@linkcode buildSyntheticDirectory} into an existing directory. */
export function writeDirectory(path: string, files: ReadonlyMap<string, Uint8Array>): void {
  for (const [name, bytes] of files) Deno.writeFileSync(`${path}/${name}`, bytes);
}
