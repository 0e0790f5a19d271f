/**
 * The request fields that chat and plain completions share, and their translation for the engine.
 *
 * @module
 */
import { z } from "zod";
import type { SamplingParams } from "../engine/request.ts";
import { fieldError } from "./api_error.ts";
import type { JsonSchema, UnservedFields } from "./body_schema.ts";
import type { ServerLimits } from "./limits.ts";

/** Fields of a generation request, as clients name them. */
export interface SamplingFields {
  /** Served model; any when absent. */
  readonly model?: string;
  /** Softness of the choice, 0 (greedy) to 2. */
  readonly temperature?: number;
  /** Above 0, at most 1. */
  readonly top_p?: number;
  /** −1 or 0 keeps all. */
  readonly top_k?: number;
  /** 0 to 1. */
  readonly min_p?: number;
  /** Above 0. */
  readonly repetition_penalty?: number;
  /** −2 to 2. */
  readonly presence_penalty?: number;
  /** −2 to 2. */
  readonly frequency_penalty?: number;
  /** Decimal token ids and what to add to their logits, −100 to 100; read by {@linkcode readSampling}. */
  readonly logit_bias?: unknown;
  /** Seed of the random source. */
  readonly seed?: number;
  /** Continuations. */
  readonly n?: number;
  /** Most tokens to generate. */
  readonly max_tokens?: number;
  /** Fewest tokens to generate. */
  readonly min_tokens?: number;
  /** Generate past the model's end tokens. */
  readonly ignore_eos?: boolean;
  /** Strings that end the text. */
  readonly stop?: string | readonly string[];
  /** Ids that end the text. */
  readonly stop_token_ids?: readonly number[];
  /** Keep the matched stop string in the text. */
  readonly include_stop_str_in_output?: boolean;
  /** Leave control tokens out of the text. */
  readonly skip_special_tokens?: boolean;
  /** Log-probabilities of prompt tokens with this many rivals. */
  readonly prompt_logprobs?: number;
  /** Lower first, for the scheduler policy. */
  readonly priority?: number;
  /** Narrows prefix sharing to requests with the same salt of the same tenant. */
  readonly cache_salt?: string;
  /** Opaque name of the end user. */
  readonly user?: string;
  /** Send events instead of one body. */
  readonly stream?: boolean;
  /** What a stream reports beside text. */
  readonly stream_options?: {
    /** One last chunk with the usage. */
    readonly include_usage?: boolean | null;
    /** Usage so far on every chunk. */
    readonly continuous_usage_stats?: boolean | null;
  };
  /** Report token ids of prompt and output. */
  readonly return_token_ids?: boolean;
  /** Show tokens in log-probability lists as `token_id:N`. */
  readonly return_tokens_as_token_ids?: boolean;
}

/** Schema of every field of {@linkcode SamplingFields}. */
export type SamplingShape = { readonly [Field in keyof SamplingFields]-?: z.ZodType<SamplingFields[Field]> };

const MOST_BIAS = 100;

const LOGIT_BIAS_SCHEMA: JsonSchema = {
  type: "object",
  propertyNames: { pattern: "^(0|[1-9][0-9]*)$" },
  additionalProperties: { type: "number", minimum: -MOST_BIAS, maximum: MOST_BIAS },
};

/** Zod shape of {@linkcode SamplingFields}. */
export function samplingShape(limits: ServerLimits): SamplingShape {
  const label = z.string().min(1).max(limits.labelLength).optional();
  const flag = z.boolean().optional();
  return {
    model: label,
    temperature: z.number().min(0).max(2).optional(),
    top_p: z.number().gt(0).max(1).optional(),
    top_k: z.int().min(-1).optional(),
    min_p: z.number().min(0).max(1).optional(),
    repetition_penalty: z.number().gt(0).max(100).optional(),
    presence_penalty: z.number().min(-2).max(2).optional(),
    frequency_penalty: z.number().min(-2).max(2).optional(),
    logit_bias: z.unknown().meta(LOGIT_BIAS_SCHEMA).optional(),
    seed: z.int().optional(),
    n: z.int().min(1).max(limits.choices).optional(),
    max_tokens: z.int().min(0).optional(),
    min_tokens: z.int().min(0).optional(),
    ignore_eos: flag,
    stop: z.union([z.string(), z.array(z.string())], { error: "expected a string or an array of strings" }).optional(),
    stop_token_ids: z.array(z.int().min(0)).max(limits.stopTokenIds).optional(),
    include_stop_str_in_output: flag,
    skip_special_tokens: flag,
    prompt_logprobs: z.int().min(0).max(limits.logprobs).optional(),
    priority: z.int().optional(),
    cache_salt: label,
    user: z.string().max(limits.labelLength).optional(),
    stream: flag,
    stream_options: z.object({
      include_usage: z.boolean().nullish(),
      continuous_usage_stats: z.boolean().nullish(),
    }).optional(),
    return_token_ids: flag,
    return_tokens_as_token_ids: flag,
  };
}

const isFalse = (value: unknown) => value === false;
const isEmpty = (value: unknown) => Array.isArray(value) && value.length === 0;
const never = () => false;

/** Fields of other servers' completions that are refused by name. */
export const UNSERVED_SAMPLING_FIELDS: UnservedFields = {
  allowed_token_ids: isEmpty,
  bad_words: isEmpty,
  grammar: never,
  guided_choice: never,
  guided_grammar: never,
  guided_json: never,
  guided_regex: never,
  id_slot: (value) => value === -1,
  json_schema: never,
  length_penalty: (value) => value === 1,
  logits_processors: isEmpty,
  n_probs: (value) => value === 0,
  response_format: (value) => typeof value === "object" && value !== null && "type" in value && value.type === "text",
  spaces_between_special_tokens: (value) => value === true,
  structured_outputs: never,
  truncate_prompt_tokens: never,
  use_beam_search: isFalse,
};

/** What {@linkcode readSampling} needs to know beside the fields. */
export interface SamplingContext {
  /** Rows of the vocabulary. */
  readonly vocab: number;
  /** Bounds. */
  readonly limits: ServerLimits;
  /** Rivals to report for each generated token; absent: no log-probabilities. */
  readonly logprobs?: number;
}

/** Below this a temperature other than 0 would overflow the logits. */
const LEAST_TEMPERATURE = 0.01;

/**
 * Sampling parameters of a request.
 *
 * @throws {ApiError} 400 that names a field whose value does not fit the model or the bounds.
 */
export function readSampling(fields: SamplingFields, context: SamplingContext): SamplingParams {
  const { vocab, limits, logprobs } = context;
  const { temperature, top_k: topK } = fields;
  for (const [place, id] of (fields.stop_token_ids ?? []).entries()) {
    checkTokenId(id, { param: `stop_token_ids[${place}]`, vocab });
  }
  if (fields.stream_options !== undefined && fields.stream !== true) {
    throw fieldError("stream_options", "expected stream to be true");
  }
  if (fields.prompt_logprobs !== undefined && fields.stream === true) {
    throw fieldError("prompt_logprobs", "expected stream to be false");
  }
  return {
    temperature: temperature === undefined || temperature === 0
      ? temperature
      : Math.max(temperature, LEAST_TEMPERATURE),
    topK: topK === undefined || topK < 1 ? 0 : Math.min(topK, vocab),
    topP: fields.top_p,
    minP: fields.min_p,
    repetitionPenalty: fields.repetition_penalty,
    presencePenalty: fields.presence_penalty,
    frequencyPenalty: fields.frequency_penalty,
    logitBias: readLogitBias(fields.logit_bias, context),
    seed: fields.seed,
    minTokens: fields.min_tokens,
    ignoreEos: fields.ignore_eos,
    stop: readStop(fields.stop, limits),
    includeStop: fields.include_stop_str_in_output,
    stopTokenIds: fields.stop_token_ids,
    logprobs,
    promptLogprobs: fields.prompt_logprobs,
    skipSpecial: fields.skip_special_tokens,
  };
}

/**
 * Checks one token id from a client.
 *
 * @throws {ApiError} 400 that names `param`.
 */
export function checkTokenId(id: number, { param, vocab }: { readonly param: string; readonly vocab: number }): void {
  if (!Number.isInteger(id) || id < 0 || id >= vocab) {
    throw fieldError(param, `expected a token id from 0 to ${vocab - 1}`);
  }
}

/** Checked by hand, because a message about a key must not repeat what the client put there. */
function readLogitBias(bias: unknown, { vocab, limits }: SamplingContext): ReadonlyMap<number, number> | undefined {
  if (bias === undefined) return undefined;
  if (typeof bias !== "object" || bias === null || Array.isArray(bias)) {
    throw fieldError("logit_bias", "expected an object");
  }
  const entries: [string, unknown][] = Object.entries(bias);
  if (entries.length > limits.logitBias) {
    throw fieldError("logit_bias", `expected at most ${limits.logitBias} entries, got ${entries.length}`);
  }
  return new Map(entries.map(([key, value]) => {
    const id = /^(0|[1-9]\d*)$/.test(key) ? Number(key) : NaN;
    checkTokenId(id, { param: "logit_bias", vocab });
    if (typeof value !== "number" || !(Math.abs(value) <= MOST_BIAS)) {
      throw fieldError("logit_bias", `expected numbers from -${MOST_BIAS} to ${MOST_BIAS}`);
    }
    return [id, value];
  }));
}

function readStop(stop: string | readonly string[] | undefined, limits: ServerLimits): readonly string[] | undefined {
  if (stop === undefined) return undefined;
  const strings = typeof stop === "string" ? [stop] : stop;
  if (strings.length > limits.stopStrings) {
    throw fieldError("stop", `expected at most ${limits.stopStrings} strings, got ${strings.length}`);
  }
  for (const text of strings) {
    if (text === "") throw fieldError("stop", "expected strings that are not empty");
    if (text.length > limits.stopBytes || new TextEncoder().encode(text).length > limits.stopBytes) {
      throw fieldError("stop", `expected strings of at most ${limits.stopBytes} bytes`);
    }
  }
  return strings;
}
