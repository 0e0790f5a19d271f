/**
 * Requests, events and the face of an engine, as a server or library user sees them.
 *
 * @module
 */

import type { ClusterControl } from "../cluster/report.ts";

/** How the next token is chosen. Every field is already range-checked. */
export interface SamplingParams {
  /** 0 is greedy. @default {1} */
  readonly temperature?: number;
  /** Keep the k most likely tokens; 0 or absent keeps all. */
  readonly topK?: number;
  /** Keep the smallest set of tokens whose probability reaches this. @default {1} */
  readonly topP?: number;
  /** Keep tokens at least this fraction as likely as the most likely one. @default {0} */
  readonly minP?: number;
  /** Divides positive and multiplies negative logits of tokens seen in prompt or output. @default {1} */
  readonly repetitionPenalty?: number;
  /** Subtracted once from tokens seen in the output. @default {0} */
  readonly presencePenalty?: number;
  /** Subtracted per occurrence in the output. @default {0} */
  readonly frequencyPenalty?: number;
  /** Added to the logits of given ids. */
  readonly logitBias?: ReadonlyMap<number, number>;
  /** Seed of the sequence's random source; absent draws one. Choice i of `n` uses seed + i. */
  readonly seed?: number;
  /** Neither end ids nor stop ids nor stop strings end the text before this many tokens. @default {0} */
  readonly minTokens?: number;
  /** Generate past the model's end tokens. @default {false} */
  readonly ignoreEos?: boolean;
  /** Strings that end the text. */
  readonly stop?: readonly string[];
  /** Whether a matched stop string stays in the text. @default {false} */
  readonly includeStop?: boolean;
  /** Ids that end the text, in addition to the model's. */
  readonly stopTokenIds?: readonly number[];
  /** Log-probabilities of the chosen token and of this many most likely ones, 0 to 20; absent: none. */
  readonly logprobs?: number;
  /** The same for every prompt token but the first; absent: none. */
  readonly promptLogprobs?: number;
  /** Whether control tokens are left out of the text. @default {true} */
  readonly skipSpecial?: boolean;
}

/** One request: a prompt and `n` independent continuations. */
export interface EngineRequest {
  /** Unique among live requests. */
  readonly id: string;
  /** Prompt ids, at least one, BOS included where the model wants it. */
  readonly prompt: ArrayLike<number>;
  /** Most tokens to generate per choice, at least 0 (0: only prompt log-probabilities). */
  readonly maxTokens: number;
  /** Continuations. @default {1} */
  readonly n?: number;
  /** Sampling. */
  readonly sampling?: SamplingParams;
  /** Lower first, for the scheduler policy. @default {0} */
  readonly priority?: number;
  /** Scope of prefix sharing: only requests of the same salt share KV. @default {""} */
  readonly cacheSalt?: string;
  /** Tenant, for the policy. @default {""} */
  readonly tenant?: string;
  /**
   * For each choice, in order, the tokens an engine generated for it before; the request goes on after them as if nothing
   * had happened. Needs the same `sampling.seed`. Events begin after these tokens: text that was held back comes with the
   * next one, the prompt's log-probabilities are not told again once there is a token, and the end of a choice that these
   * tokens complete is told by the first step. `maxTokens` counts them. @default {none}
   */
  readonly resumed?: readonly (readonly number[])[];
}

/** Log-probability of a token and its most likely rivals. */
export interface TokenLogprob {
  /** Token. */
  readonly id: number;
  /** Natural log of its probability under the model's own distribution (before penalties and temperature). */
  readonly logprob: number;
  /** Rank among all tokens, 1 for the most likely. */
  readonly rank: number;
  /** Most likely tokens, descending. */
  readonly top: readonly { readonly id: number; readonly logprob: number }[];
}

/** Why a choice ended. */
export type FinishReason = "stop" | "length" | "cancelled" | "error";

/** Tokens used by a request. */
export interface Usage {
  /** Prompt tokens. */
  readonly promptTokens: number;
  /** Prompt tokens whose KV came from the prefix cache. */
  readonly cachedTokens: number;
  /** Generated tokens over all choices. */
  readonly completionTokens: number;
}

/** What a request tells. Every request yields exactly one `end`, and nothing after it. */
export type RequestEvent =
  | {
    readonly kind: "prompt";
    /** One entry per prompt token; null for the first. */
    readonly logprobs: readonly (TokenLogprob | null)[];
  }
  | {
    readonly kind: "token";
    /** Choice, 0 to n - 1. */
    readonly index: number;
    /** New tokens (several when events of a few steps are joined). */
    readonly ids: readonly number[];
    /** Text that became certain with them; never half a character, never part of a stop string. */
    readonly text: string;
    /** One entry per id when asked for. */
    readonly logprobs?: readonly TokenLogprob[];
  }
  | {
    readonly kind: "choice-end";
    /** Choice, 0 to n - 1. */
    readonly index: number;
    /** Why it ended. */
    readonly reason: FinishReason;
    /** Text held back until now. */
    readonly text: string;
    /** The stop string or stop id that ended it. */
    readonly stop?: string | number;
  }
  | {
    readonly kind: "end";
    /** Tokens used. */
    readonly usage: Usage;
    /** Set when the request failed. */
    readonly error?: { readonly message: string; readonly code: string; readonly status: number };
    /** Milliseconds in the queue, in prefill and in decoding. */
    readonly timing: { readonly queuedMs: number; readonly prefillMs: number; readonly decodeMs: number };
  };

/** Blocks of an engine; free + owned + cached + lent + quarantined = total. */
export interface BlockStats {
  /** Blocks of the pool. */
  readonly total: number;
  /** Without content. */
  readonly free: number;
  /** In use by live sequences. */
  readonly owned: number;
  /** Of the prefix cache, given away when others need them. */
  readonly cached: number;
  /** Lent to other members. */
  readonly lent: number;
  /** Given back by other members, not yet safe to use. */
  readonly quarantined: number;
  /** Held at other members for live sequences; not part of the total. */
  readonly borrowed: number;
}

/** Counters and gauges of an engine; counters only rise. */
export interface EngineStats {
  /** Sequences waiting for blocks or budget. */
  readonly waiting: number;
  /** Sequences running. */
  readonly running: number;
  /** Blocks. */
  readonly blocks: BlockStats;
  /** Tokens one block holds. */
  readonly blockTokens: number;
  /** Steps run. */
  readonly steps: number;
  /** Prompt tokens computed, cached ones not counted. */
  readonly promptTokens: number;
  /** Tokens generated. */
  readonly generatedTokens: number;
  /** Prompt tokens looked up in and found in the prefix cache. */
  readonly prefixQueries: number;
  /** See {@linkcode prefixQueries}. */
  readonly prefixHits: number;
  /** Preemptions. */
  readonly preemptions: number;
  /** Segments whose KV was lost at another member and is whole again. */
  readonly repairs: number;
  /** Tokens computed again for that. */
  readonly repairedTokens: number;
  /** Steps of which nothing counts because something they needed was lost. */
  readonly lostSteps: number;
  /** Policy answers discarded, by hook. */
  readonly policyFallbacks: Readonly<Record<string, number>>;
  /** Time of the last generated token, ms since the engine's start; 0 before the first. */
  readonly lastTokenMs: number;
  /** Seconds from the start of steps to their end. */
  readonly stepSeconds: number;
}

/** An engine on another thread or this one: what the server, the CLI and library users hold. */
export interface EngineHandle extends AsyncDisposable {
  /** Facts fixed at start. */
  readonly info: EngineInfo;
  /** The cluster it is in; undefined for an engine on its own. */
  readonly cluster?: ClusterControl;
  /** Resolves when its device can do nothing more in this process: only another process can serve on. */
  readonly deviceLost?: Promise<Error>;
  /**
   * Runs a request. Ending the iteration early, or aborting, cancels it: its blocks are free within one step.
   *
   * @throws {CapacityError} when it can never fit or the policy or the queue refuses it.
   */
  generate(request: EngineRequest, options?: { readonly signal?: AbortSignal }): AsyncIterable<RequestEvent>;
  /** Current counters. */
  stats(): Promise<EngineStats>;
}

/** Facts of an engine that do not change. */
export interface EngineInfo {
  /** Served model's name. */
  readonly model: string;
  /** Digest of the model file. */
  readonly digest: string;
  /** Longest prompt plus output, tokens. */
  readonly maxModelLen: number;
  /** Rows of the vocabulary. */
  readonly vocab: number;
  /** One line on the device. */
  readonly device: string;
  /** Bytes of weights and of the KV pool. */
  readonly weightBytes: number;
  /** See {@linkcode weightBytes}. */
  readonly kvBytes: number;
  /** Tokens the pool holds. */
  readonly kvTokens: number;
  /** Name of the active scheduler policy. */
  readonly scheduler: string;
}

/** A request that cannot be served: too long, or turned away at the door. */
export class CapacityError extends Error {
  /** Error name. */
  override readonly name = "CapacityError";
  /** HTTP status that fits. */
  readonly status: 400 | 429 | 503;
  /** OpenAI-style code, for example `context_length_exceeded` or `queue_full`. */
  readonly code: string;
  /** Seconds after which a retry makes sense. */
  readonly retryAfterSeconds?: number;
  /** Makes one. */
  constructor(
    message: string,
    options: { readonly status: 400 | 429 | 503; readonly code: string; readonly retryAfterSeconds?: number },
  ) {
    super(message);
    this.status = options.status;
    this.code = options.code;
    this.retryAfterSeconds = options.retryAfterSeconds;
  }
}
