/**
 * From a checked request to engine events.
 *
 * @module
 */
import { createHash, randomUUID } from "node:crypto";
import type {
  EngineRequest,
  FinishReason,
  RequestEvent,
  SamplingParams,
  TokenLogprob,
  Usage,
} from "../engine/request.ts";
import type { QueuePlace } from "./admission_queue.ts";
import { ApiError, fieldError } from "./api_error.ts";
import type { Backend } from "./backend.ts";
import type { EventFeed } from "./event_feed.ts";
import type { Exchange } from "./exchange.ts";
import type { UsageBody } from "./response_types.ts";
import type { SamplingFields } from "./sampling_fields.ts";

/** Id, time and names that every part of an answer carries. */
export interface AnswerHead {
  /** Id of the answer. */
  readonly id: string;
  /** Seconds since the epoch. */
  readonly created: number;
  /** Model, as the request named it. */
  readonly model: string;
  /** Changes with the model file. */
  readonly system_fingerprint: string;
}

/** A value from a request and what it is checked against. */
export interface PromptCheck {
  /** Backend that would run it. */
  readonly backend: Backend;
  /** Longest prompt plus output now, tokens. */
  readonly maxModelLen: number;
  /** Name of the field for messages. */
  readonly param: string;
}

/**
 * Head of an answer; `prefix` names its kind.
 *
 * @throws {ApiError} 404 when the request names a model that is not served.
 */
export function answerHead(
  fields: SamplingFields,
  { prefix, backend }: { readonly prefix: string; readonly backend: Backend },
): AnswerHead {
  const model = fields.model ?? backend.models[0];
  if (!backend.models.includes(model)) {
    throw new ApiError("Cannot find the model: it is not served here", {
      status: 404,
      code: "model_not_found",
      param: "model",
    });
  }
  return {
    id: `${prefix}-${randomUUID().replaceAll("-", "")}`,
    created: Math.floor(Date.now() / 1000),
    model,
    system_fingerprint: `fp_${backend.engine.info.digest.slice(0, 12)}`,
  };
}

/**
 * Refuses a text before it is tokenized when even the longest tokens could not make it fit.
 *
 * @throws {ApiError} 400 `context_length_exceeded`.
 */
export function checkTextFits(text: string, { backend, maxModelLen, param }: PromptCheck): void {
  const mostBytes = maxModelLen * backend.texts.longestBytes;
  if (text.length > mostBytes) throw tooLong(param, `at most ${maxModelLen} tokens fit, the text is far longer`);
}

/**
 * Most tokens to generate after a prompt of `promptTokens`: `wanted`, or all that fit.
 *
 * @throws {ApiError} 400 when the prompt is empty or the two do not fit the context together.
 */
export function outputBudget(
  promptTokens: number,
  { wanted, maxModelLen, param }: Omit<PromptCheck, "backend"> & { readonly wanted?: number },
): number {
  if (promptTokens === 0) throw fieldError(param, "expected at least one token");
  const budget = wanted ?? maxModelLen - promptTokens;
  if (promptTokens + budget > maxModelLen || (wanted === undefined && budget < 1)) {
    const asked = wanted === undefined ? "" : ` and ${wanted} to generate`;
    throw tooLong(param, `at most ${maxModelLen} tokens fit, got ${promptTokens} in the prompt${asked}`);
  }
  return budget;
}

function tooLong(param: string, problem: string): ApiError {
  return new ApiError(`Cannot fit the request into the context: ${problem}`, {
    status: 400,
    code: "context_length_exceeded",
    param,
  });
}

/** What {@linkcode engineRequest} puts together. */
export interface EngineRequestParts {
  /** Unique among live requests. */
  readonly id: string;
  /** Prompt ids. */
  readonly prompt: ArrayLike<number>;
  /** Most tokens to generate. */
  readonly maxTokens: number;
  /** Sampling. */
  readonly sampling: SamplingParams;
  /** Owner of the key. */
  readonly tenant: string;
}

/**
 * The engine's request.
 *
 * @throws {ApiError} 400 when more tokens are asked for at least than at most.
 */
export function engineRequest(fields: SamplingFields, parts: EngineRequestParts): EngineRequest {
  if ((fields.min_tokens ?? 0) > parts.maxTokens) {
    throw fieldError("min_tokens", `expected at most max_tokens, ${parts.maxTokens}`);
  }
  return {
    ...parts,
    n: fields.n ?? 1,
    priority: fields.priority ?? 0,
    cacheSalt: cacheScope(parts.tenant, fields.cache_salt),
  };
}

/** Scope of prefix sharing: a client's salt only ever narrows the scope of its tenant. */
function cacheScope(tenant: string, salt: string | undefined): string {
  if (tenant === "" && salt === undefined) return "";
  return createHash("sha256").update(JSON.stringify([tenant, salt ?? null])).digest("hex");
}

/** Runs `request` and observes it. Its place in the queue is left with the first token, at the latest at the end. */
export async function* runRequest(
  request: EngineRequest,
  context: { readonly backend: Backend; readonly exchange: Exchange; readonly place: QueuePlace },
): AsyncGenerator<RequestEvent> {
  const { backend, exchange, place } = context;
  const { signal } = exchange;
  const observation = backend.metrics.begin(request, exchange.arrivedMs);
  try {
    for await (const event of backend.engine.generate(request, { signal })) {
      if (event.kind !== "prompt") place.leave();
      observation.record(event);
      // An engine may end an aborted request in its own words; the client is told the reason of the abort.
      signal.throwIfAborted();
      yield event;
      if (event.kind === "end") return;
    }
    signal.throwIfAborted();
    throw new Error("Cannot finish the request: the engine's events ended without an end");
  } finally {
    place.leave();
    observation.close();
  }
}

/** One choice as generated. */
export interface ChoiceOutcome {
  /** Its text. */
  readonly text: string;
  /** Its ids. */
  readonly ids: readonly number[];
  /** One entry an id, when asked for. */
  readonly logprobs: readonly TokenLogprob[];
  /** Why it ended. */
  readonly reason: FinishReason;
  /** The stop string or id that ended it. */
  readonly stop: string | number | null;
}

/** One engine request as generated. */
export interface RequestOutcome {
  /** Its choices. */
  readonly choices: readonly ChoiceOutcome[];
  /** One entry a prompt token, when asked for. */
  readonly promptLogprobs: readonly (TokenLogprob | null)[];
  /** Tokens used. */
  readonly usage: Usage;
}

/**
 * Waits for every request of `feed` to end.
 *
 * @throws {ApiError} when one of them fails or is cancelled; the others are ended.
 */
export async function collect(feed: EventFeed, requests: readonly EngineRequest[]): Promise<RequestOutcome[]> {
  const outcomes = requests.map(({ n = 1 }) => ({
    choices: Array.from({ length: n }, () => ({
      text: "",
      ids: [] as number[],
      logprobs: [] as TokenLogprob[],
      reason: "length" as FinishReason,
      stop: null as string | number | null,
    })),
    promptLogprobs: [] as readonly (TokenLogprob | null)[],
    usage: { promptTokens: 0, cachedTokens: 0, completionTokens: 0 } as Usage,
  }));
  try {
    for (let item = await feed.next(); item !== undefined && item !== "idle"; item = await feed.next()) {
      const { source, event } = item;
      const outcome = outcomes[source];
      switch (event.kind) {
        case "prompt":
          outcome.promptLogprobs = event.logprobs;
          break;
        case "token": {
          const choice = outcome.choices[event.index];
          choice.text += event.text;
          choice.ids.push(...event.ids);
          choice.logprobs.push(...event.logprobs ?? []);
          break;
        }
        case "choice-end": {
          const choice = outcome.choices[event.index];
          choice.text += event.text;
          choice.reason = event.reason;
          choice.stop = event.stop ?? null;
          break;
        }
        case "end":
          outcome.usage = event.usage;
          checkEnd(event, outcome.choices.map((choice) => choice.reason));
          break;
        default:
          event satisfies never;
      }
    }
  } finally {
    feed.close();
  }
  return outcomes;
}

/**
 * Checks that a request ended well.
 *
 * @throws {ApiError} with the engine's status, or 503 when a choice was cancelled.
 */
export function checkEnd(end: Extract<RequestEvent, { kind: "end" }>, reasons: Iterable<FinishReason>): void {
  if (end.error !== undefined) {
    const { message, status, code } = end.error;
    throw new ApiError(message, { status, code, headers: status === 429 ? { "retry-after": "1" } : {} });
  }
  for (const reason of reasons) {
    if (reason === "cancelled") {
      throw new ApiError("Cannot finish the request: it was cancelled", { status: 503, code: "cancelled" });
    }
    if (reason === "error") {
      throw new ApiError("Cannot finish the request: generation failed", { status: 500, code: "generation_failed" });
    }
  }
}

/** A reason that clients know; others never reach an answer. */
export function finishReason(reason: FinishReason): "stop" | "length" {
  return reason === "stop" ? "stop" : "length";
}

/** Sum of several requests' usage, as clients read it. */
export function usageBody(usages: readonly Usage[]): UsageBody {
  const sum = (pick: (usage: Usage) => number) => usages.reduce((total, usage) => total + pick(usage), 0);
  const prompt = sum((usage) => usage.promptTokens);
  const completion = sum((usage) => usage.completionTokens);
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: sum((usage) => usage.cachedTokens) },
  };
}
