/**
 * Bodies of successful answers, as types and as schemas for the API document.
 *
 * @module
 */
import { z } from "zod";

/** Tokens used by a request. */
export interface UsageBody {
  /** Prompt tokens. */
  readonly prompt_tokens: number;
  /** Generated tokens over all choices. */
  readonly completion_tokens: number;
  /** Sum of the two. */
  readonly total_tokens: number;
  /** More on the prompt. */
  readonly prompt_tokens_details: {
    /** Prompt tokens whose KV came from the prefix cache. */
    readonly cached_tokens: number;
  };
}

/** A token and its log-probability in a chat answer. */
export interface ChatTokenLogprob {
  /** Its text. */
  readonly token: string;
  /** Natural log of its probability. */
  readonly logprob: number;
  /** Its bytes. */
  readonly bytes: readonly number[];
}

/** Log-probabilities of a chat choice. */
export interface ChatLogprobs {
  /** One entry a token. */
  readonly content: readonly (ChatTokenLogprob & {
    /** Most likely tokens at this place. */
    readonly top_logprobs: readonly ChatTokenLogprob[];
  })[];
}

/** Log-probabilities of a completion choice: four arrays with one entry a token. */
export interface CompletionLogprobs {
  /** Text of each token. */
  readonly tokens: readonly string[];
  /** Log-probability; null for the first token of a prompt. */
  readonly token_logprobs: readonly (number | null)[];
  /** Most likely tokens and the chosen one; null for the first token of a prompt. */
  readonly top_logprobs: readonly (Readonly<Record<string, number>> | null)[];
  /** Characters before each token. */
  readonly text_offset: readonly number[];
}

/** Log-probabilities of one prompt token by token id, as vLLM reports them. */
export type PromptLogprob = Readonly<
  Record<string, {
    /** Natural log of its probability. */
    readonly logprob: number;
    /** 1 for the most likely token. */
    readonly rank: number;
    /** Its text. */
    readonly decoded_token: string;
  }>
>;

/** How a choice ended. */
export interface ChoiceEnd {
  /** `stop` or `length`. */
  readonly finish_reason: "stop" | "length";
  /** The stop string or id that ended it, if one of the request's did. */
  readonly stop_reason: string | number | null;
}

/** One choice of a chat answer. */
export interface ChatChoice extends ChoiceEnd {
  /** Place among the choices. */
  readonly index: number;
  /** The answer. */
  readonly message: { readonly role: "assistant"; readonly content: string };
  /** Log-probabilities, when asked for. */
  readonly logprobs: ChatLogprobs | null;
  /** Generated ids, when asked for. */
  readonly token_ids?: readonly number[];
}

/** Answer to a chat completion request. */
export interface ChatCompletion {
  /** Id of the answer. */
  readonly id: string;
  /** Kind of object. */
  readonly object: "chat.completion";
  /** Seconds since the epoch. */
  readonly created: number;
  /** Model, as the request named it. */
  readonly model: string;
  /** Changes with the model file. */
  readonly system_fingerprint: string;
  /** Continuations. */
  readonly choices: readonly ChatChoice[];
  /** Tokens used. */
  readonly usage: UsageBody;
  /** Ids of the prompt, when asked for. */
  readonly prompt_token_ids?: readonly number[];
  /** Log-probabilities of the prompt, when asked for. */
  readonly prompt_logprobs?: readonly (PromptLogprob | null)[];
}

/** One choice of a completion answer. */
export interface CompletionChoice extends ChoiceEnd {
  /** Place among the choices. */
  readonly index: number;
  /** The text. */
  readonly text: string;
  /** Log-probabilities, when asked for. */
  readonly logprobs: CompletionLogprobs | null;
  /** Generated ids, when asked for. */
  readonly token_ids?: readonly number[];
  /** Ids of the prompt, when asked for. */
  readonly prompt_token_ids?: readonly number[];
  /** Log-probabilities of the prompt, when asked for. */
  readonly prompt_logprobs?: readonly (PromptLogprob | null)[];
}

/** Answer to a completion request. */
export interface TextCompletion {
  /** Id of the answer. */
  readonly id: string;
  /** Kind of object. */
  readonly object: "text_completion";
  /** Seconds since the epoch. */
  readonly created: number;
  /** Model, as the request named it. */
  readonly model: string;
  /** Changes with the model file. */
  readonly system_fingerprint: string;
  /** Continuations, `n` for each prompt. */
  readonly choices: readonly CompletionChoice[];
  /** Tokens used. */
  readonly usage: UsageBody;
}

/** A served model. */
export interface ModelBody {
  /** Name to use in requests. */
  readonly id: string;
  /** Kind of object. */
  readonly object: "model";
  /** Seconds since the epoch at which the server started. */
  readonly created: number;
  /** Who serves it. */
  readonly owned_by: string;
  /** Longest prompt plus output, tokens. */
  readonly max_model_len: number;
}

/** Served models. */
export interface ModelList {
  /** Kind of object. */
  readonly object: "list";
  /** Models. */
  readonly data: readonly ModelBody[];
}

/** Answer of `/tokenize`. */
export interface TokenizeBody {
  /** Token ids. */
  readonly tokens: readonly number[];
  /** How many. */
  readonly count: number;
  /** Longest prompt plus output, tokens. */
  readonly max_model_len: number;
}

/** Answer of `/detokenize` and `/apply-template`. */
export interface PromptBody {
  /** The text. */
  readonly prompt: string;
}

const usage: z.ZodType<UsageBody> = z.strictObject({
  prompt_tokens: z.int(),
  completion_tokens: z.int(),
  total_tokens: z.int(),
  prompt_tokens_details: z.strictObject({ cached_tokens: z.int() }),
});

const tokenShape = { token: z.string(), logprob: z.number(), bytes: z.array(z.int()) };

const chatLogprobs: z.ZodType<ChatLogprobs> = z.strictObject({
  content: z.array(z.strictObject({ ...tokenShape, top_logprobs: z.array(z.strictObject(tokenShape)) })),
});

const completionLogprobs: z.ZodType<CompletionLogprobs> = z.strictObject({
  tokens: z.array(z.string()),
  token_logprobs: z.array(z.number().nullable()),
  top_logprobs: z.array(z.record(z.string(), z.number()).nullable()),
  text_offset: z.array(z.int()),
});

const promptLogprobs = z.array(
  z.record(z.string(), z.strictObject({ logprob: z.number(), rank: z.int(), decoded_token: z.string() })).nullable(),
);

const endShape = {
  finish_reason: z.enum(["stop", "length"]),
  stop_reason: z.union([z.string(), z.int()]).nullable(),
};

const answerShape = {
  id: z.string(),
  created: z.int(),
  model: z.string(),
  system_fingerprint: z.string(),
  usage,
};

const ids = z.array(z.int());

/** Schema of {@linkcode ChatCompletion}. */
export const chatCompletion: z.ZodType<ChatCompletion> = z.strictObject({
  ...answerShape,
  object: z.literal("chat.completion"),
  choices: z.array(z.strictObject({
    ...endShape,
    index: z.int(),
    message: z.strictObject({ role: z.literal("assistant"), content: z.string() }),
    logprobs: chatLogprobs.nullable(),
    token_ids: ids.optional(),
  })),
  prompt_token_ids: ids.optional(),
  prompt_logprobs: promptLogprobs.optional(),
});

/** Schema of {@linkcode TextCompletion}. */
export const textCompletion: z.ZodType<TextCompletion> = z.strictObject({
  ...answerShape,
  object: z.literal("text_completion"),
  choices: z.array(z.strictObject({
    ...endShape,
    index: z.int(),
    text: z.string(),
    logprobs: completionLogprobs.nullable(),
    token_ids: ids.optional(),
    prompt_token_ids: ids.optional(),
    prompt_logprobs: promptLogprobs.optional(),
  })),
});

/** Schema of {@linkcode ModelBody}. */
export const model: z.ZodType<ModelBody> = z.strictObject({
  id: z.string(),
  object: z.literal("model"),
  created: z.int(),
  owned_by: z.string(),
  max_model_len: z.int(),
});

/** Schema of {@linkcode ModelList}. */
export const modelList: z.ZodType<ModelList> = z.strictObject({ object: z.literal("list"), data: z.array(model) });

/** Schema of {@linkcode TokenizeBody}. */
export const tokenizeBody: z.ZodType<TokenizeBody> = z.strictObject({
  tokens: ids,
  count: z.int(),
  max_model_len: z.int(),
});

/** Schema of {@linkcode PromptBody}. */
export const promptBody: z.ZodType<PromptBody> = z.strictObject({ prompt: z.string() });
