/**
 * LLaMA: RMSNorm, grouped-query attention with rotary embedding, gated SiLU MLP, no biases but optional ones on query,
 * key and value. GGUF files store query and key rows for rotation of adjacent pairs, Hugging Face files for halves.
 *
 * @module
 */
import { readValues } from "../../weights/f32_vector.ts";
import type { GgufFile } from "../../weights/gguf.ts";
import type { HfDirectory } from "../../weights/hf_directory.ts";
import type { JsonDocument } from "../../weights/json_document.ts";
import { ModelFileError } from "../../weights/model_file_error.ts";
import { buildDecoder, type DecoderSizes, type LayerNames } from "../decoder.ts";
import type { Decoder, ModelFamily } from "../family.ts";
import type { RopeInit, RopeScaling } from "../rope.ts";
import { yarnAttentionFactor } from "../rope.ts";

const DEFAULT_THETA = 10_000;
/** Tensor of frequency divisors that converters write for llama3 scaling. */
const FREQUENCY_DIVISORS = "rope_freqs.weight";

/** The LLaMA family. */
export const LLAMA: ModelFamily = {
  name: "llama",
  fromGguf,
  fromHuggingFace: (directory) => llamaFromHuggingFace(directory, "llama"),
};

const GGUF_FIELDS: { readonly [Size in keyof DecoderSizes]: string } = {
  layers: "llama.block_count",
  hidden: "llama.embedding_length",
  heads: "llama.attention.head_count",
  kvHeads: "llama.attention.head_count_kv",
  headDim: "llama.attention.key_length",
  intermediate: "llama.feed_forward_length",
  vocab: "llama.vocab_size",
  contextLength: "llama.context_length",
  normEps: "llama.attention.layer_norm_rms_epsilon",
};

/** Keys of variants that compute something else, with the value that means "not used". */
const GGUF_UNUSED: Readonly<Record<string, number>> = {
  "llama.expert_count": 0,
  "llama.attention.clamp_kqv": 0,
  "llama.attention.scale": 0,
  "llama.attn_logit_softcapping": 0,
  "llama.final_logit_softcapping": 0,
  "llama.logit_scale": 1,
  "llama.residual_scale": 1,
  "llama.embedding_scale": 1,
};

function fromGguf(file: GgufFile): Decoder {
  const error = (field: string, problem: string) => new ModelFileError(file.name, { field, problem });
  const required = (key: string): number => {
    const value = perLayerNumber(file, key);
    if (value === undefined) throw error(key, "is missing");
    return value;
  };
  for (const [key, unused] of Object.entries(GGUF_UNUSED)) {
    const value = file.number(key);
    if (value !== undefined && value !== unused) throw error(key, `is not supported, got ${value}`);
  }
  const contextLength = required(GGUF_FIELDS.contextLength);
  rejectSlidingWindow(
    file.number("llama.attention.sliding_window"),
    contextLength,
    (problem) => error("llama.attention.sliding_window", problem),
  );
  const headDim = file.number(GGUF_FIELDS.headDim);
  const valueDim = file.number("llama.attention.value_length");
  if (valueDim !== undefined && headDim !== undefined && valueDim !== headDim) {
    throw error("llama.attention.value_length", `must equal the key length ${headDim}, got ${valueDim}`);
  }
  const heads = required(GGUF_FIELDS.heads);
  return buildDecoder({
    family: LLAMA.name,
    file: file.name,
    tensors: file.tensors,
    sizes: {
      layers: required(GGUF_FIELDS.layers),
      hidden: required(GGUF_FIELDS.hidden),
      heads,
      kvHeads: perLayerNumber(file, GGUF_FIELDS.kvHeads) ?? heads,
      headDim,
      intermediate: required(GGUF_FIELDS.intermediate),
      vocab: file.number(GGUF_FIELDS.vocab),
      contextLength,
      normEps: required(GGUF_FIELDS.normEps),
    },
    fields: GGUF_FIELDS,
    rope: (headDim) => ggufRope(file, { headDim, contextLength }),
    ropeField: "llama.rope",
    names: { embedding: "token_embd.weight", outputNorm: "output_norm.weight", head: "output.weight" },
    layerNames: ggufLayerNames,
    tied: "auto",
    ignored: (name) => name === FREQUENCY_DIVISORS,
  });
}

/** A size that some writers state once per layer; all must be equal. */
function perLayerNumber(file: GgufFile, key: string): number | undefined {
  const value = file.get(key);
  if (typeof value !== "object") return file.number(key);
  const values = file.numbers(key) ?? [];
  if (values.length === 0 || values.some((other) => other !== values[0])) {
    throw new ModelFileError(file.name, { field: key, problem: "must be the same for all layers" });
  }
  return values[0];
}

function ggufLayerNames(layer: number): LayerNames {
  const prefix = `blk.${layer}.`;
  return {
    attentionNorm: `${prefix}attn_norm.weight`,
    query: `${prefix}attn_q.weight`,
    key: `${prefix}attn_k.weight`,
    value: `${prefix}attn_v.weight`,
    queryBias: `${prefix}attn_q.bias`,
    keyBias: `${prefix}attn_k.bias`,
    valueBias: `${prefix}attn_v.bias`,
    output: `${prefix}attn_output.weight`,
    mlpNorm: `${prefix}ffn_norm.weight`,
    gate: `${prefix}ffn_gate.weight`,
    up: `${prefix}ffn_up.weight`,
    down: `${prefix}ffn_down.weight`,
  };
}

function ggufRope(
  file: GgufFile,
  { headDim, contextLength }: { readonly headDim: number; readonly contextLength: number },
): RopeInit {
  const divisors = file.tensors.get(FREQUENCY_DIVISORS);
  return {
    dimensions: file.number("llama.rope.dimension_count") ?? headDim,
    theta: file.number("llama.rope.freq_base") ?? DEFAULT_THETA,
    pairing: "adjacent",
    scaling: ggufScaling(file, contextLength),
    ...(divisors && { divisors: readValues(divisors) }),
  };
}

function ggufScaling(file: GgufFile, contextLength: number): RopeScaling {
  const key = (name: string) => `llama.rope.scaling.${name}`;
  // "llama.rope.scale_linear" is how the first files said it; a factor of 0 means none.
  const factor = file.number(key("factor")) || file.number("llama.rope.scale_linear") || 1;
  const kind = file.string(key("type")) ?? "linear";
  switch (kind) {
    case "none":
      return { kind: "none" };
    case "linear":
      return { kind: "linear", factor };
    case "yarn": {
      const betaFast = file.number(key("yarn_beta_fast"));
      const betaSlow = file.number(key("yarn_beta_slow"));
      // GGUF states a factor on top of YaRN's own.
      const extra = file.number(key("yarn_attn_factor")) ?? file.number(key("attn_factor")) ?? 1;
      return {
        kind: "yarn",
        factor,
        originalContext: file.number(key("original_context_length")) ?? contextLength,
        attentionFactor: extra * yarnAttentionFactor(factor),
        ...(betaFast && { betaFast }),
        ...(betaSlow && { betaSlow }),
      };
    }
    default:
      throw new ModelFileError(file.name, {
        field: key("type"),
        problem: `must be none, linear or yarn, got ${JSON.stringify(kind)}`,
      });
  }
}

const HF_FIELDS: { readonly [Size in keyof DecoderSizes]: string } = {
  layers: "num_hidden_layers",
  hidden: "hidden_size",
  heads: "num_attention_heads",
  kvHeads: "num_key_value_heads",
  headDim: "head_dim",
  intermediate: "intermediate_size",
  vocab: "vocab_size",
  contextLength: "max_position_embeddings",
  normEps: "rms_norm_eps",
};

/**
 * Reads a configuration in the spelling of LLaMA, which other families share.
 *
 * @throws {ModelFileError} when the directory is not such a model.
 */
export function llamaFromHuggingFace(directory: HfDirectory, family: string): Decoder {
  const { config } = directory;
  const required = (key: string): number => {
    const value = config.number(key);
    if (value === undefined) throw config.error(key, "is missing");
    return value;
  };
  if (config.get("quantization_config") !== undefined) throw config.error("quantization_config", "is not supported");
  const activation = config.string("hidden_act") ?? "silu";
  if (activation !== "silu") throw config.error("hidden_act", `must be "silu", got ${JSON.stringify(activation)}`);
  const contextLength = required(HF_FIELDS.contextLength);
  rejectSlidingWindow(
    config.number("sliding_window"),
    contextLength,
    (problem) => config.error("sliding_window", problem),
  );
  const heads = required(HF_FIELDS.heads);
  return buildDecoder({
    family,
    file: config.file,
    tensors: directory.tensors,
    sizes: {
      layers: required(HF_FIELDS.layers),
      hidden: required(HF_FIELDS.hidden),
      heads,
      kvHeads: config.number(HF_FIELDS.kvHeads) ?? heads,
      headDim: config.number(HF_FIELDS.headDim),
      intermediate: required(HF_FIELDS.intermediate),
      vocab: required(HF_FIELDS.vocab),
      contextLength,
      normEps: required(HF_FIELDS.normEps),
    },
    fields: HF_FIELDS,
    rope: (headDim) => hfRope(config, { headDim, contextLength }),
    ropeField: "rope_parameters",
    names: { embedding: "model.embed_tokens.weight", outputNorm: "model.norm.weight", head: "lm_head.weight" },
    layerNames: hfLayerNames,
    tied: config.boolean("tie_word_embeddings") ?? false,
    // Old checkpoints store the unscaled inverse frequencies, which follow from the configuration.
    ignored: (name) => name.endsWith(".rotary_emb.inv_freq"),
  });
}

/** Full attention is what devices compute, so a window that would hide tokens is refused. */
function rejectSlidingWindow(
  window: number | undefined,
  contextLength: number,
  error: (problem: string) => ModelFileError,
): void {
  if (window !== undefined && window !== 0 && window < contextLength) {
    throw error(`of ${window} tokens in a context of ${contextLength} is not supported: attention is always full`);
  }
}

function hfLayerNames(layer: number): LayerNames {
  const prefix = `model.layers.${layer}.`;
  return {
    attentionNorm: `${prefix}input_layernorm.weight`,
    query: `${prefix}self_attn.q_proj.weight`,
    key: `${prefix}self_attn.k_proj.weight`,
    value: `${prefix}self_attn.v_proj.weight`,
    queryBias: `${prefix}self_attn.q_proj.bias`,
    keyBias: `${prefix}self_attn.k_proj.bias`,
    valueBias: `${prefix}self_attn.v_proj.bias`,
    output: `${prefix}self_attn.o_proj.weight`,
    mlpNorm: `${prefix}post_attention_layernorm.weight`,
    gate: `${prefix}mlp.gate_proj.weight`,
    up: `${prefix}mlp.up_proj.weight`,
    down: `${prefix}mlp.down_proj.weight`,
  };
}

function hfRope(
  config: JsonDocument,
  { headDim, contextLength }: { readonly headDim: number; readonly contextLength: number },
): RopeInit {
  // `rope_parameters` is the newer spelling and holds theta too.
  const parameters = config.object("rope_parameters") ?? config.object("rope_scaling");
  const rotated = parameters?.number("partial_rotary_factor") ?? config.number("partial_rotary_factor") ?? 1;
  return {
    dimensions: Math.trunc(headDim * rotated),
    theta: parameters?.number("rope_theta") ?? config.number("rope_theta") ?? DEFAULT_THETA,
    pairing: "halves",
    scaling: parameters === undefined ? { kind: "none" } : hfScaling(parameters, {
      contextLength,
      originalContext: config.number("original_max_position_embeddings"),
    }),
  };
}

function hfScaling(
  parameters: JsonDocument,
  context: { readonly contextLength: number; readonly originalContext: number | undefined },
): RopeScaling {
  const required = (key: string): number => {
    const value = parameters.number(key);
    if (value === undefined) throw parameters.error(key, "is missing");
    return value;
  };
  const kind = parameters.string("rope_type") ?? parameters.string("type") ?? "default";
  const originalContext = context.originalContext ?? parameters.number("original_max_position_embeddings") ??
    context.contextLength;
  switch (kind) {
    case "default":
      return { kind: "none" };
    case "linear":
      return { kind, factor: required("factor") };
    case "llama3":
      return {
        kind,
        factor: required("factor"),
        lowFrequencyFactor: required("low_freq_factor"),
        highFrequencyFactor: required("high_freq_factor"),
        originalContext,
      };
    case "yarn": {
      const factor = parameters.number("factor") ?? context.contextLength / originalContext;
      return {
        kind,
        factor,
        originalContext,
        betaFast: parameters.number("beta_fast") || 32,
        betaSlow: parameters.number("beta_slow") || 1,
        attentionFactor: hfAttentionFactor(parameters, factor),
        truncate: parameters.boolean("truncate") ?? true,
      };
    }
    default:
      throw parameters.error("rope_type", `must be default, linear, llama3 or yarn, got ${JSON.stringify(kind)}`);
  }
}

function hfAttentionFactor(parameters: JsonDocument, factor: number): number {
  const stated = parameters.number("attention_factor");
  if (stated !== undefined) return stated;
  const scale = parameters.number("mscale");
  const scaleAll = parameters.number("mscale_all_dim");
  if (scale && scaleAll) return yarnAttentionFactor(factor, scale) / yarnAttentionFactor(factor, scaleAll);
  return yarnAttentionFactor(factor);
}
