/**
 * Chat answers, whole and in chunks.
 *
 * @module
 */
import type { RequestEvent } from "../engine/request.ts";
import type { ChunkWriter } from "./event_stream.ts";
import { type AnswerHead, finishReason, type RequestOutcome, usageBody } from "./generation.ts";
import { chatLogprobs, promptLogprobs, type TokenStyle } from "./logprob_format.ts";
import type { ChatCompletion, ChatLogprobs, UsageBody } from "./response_types.ts";

/** What shapes a chat answer. */
export interface ChatFormat {
  /** Id, time and names. */
  readonly head: AnswerHead;
  /** How tokens are shown. */
  readonly style: TokenStyle;
  /** Choices. */
  readonly n: number;
  /** Whether log-probabilities were asked for. */
  readonly logprobs: boolean;
  /** Ids of the prompt, when token ids were asked for. */
  readonly promptIds?: readonly number[];
  /** Whether every chunk carries the usage so far. */
  readonly continuousUsage: boolean;
  /** Prompt tokens. */
  readonly promptTokens: number;
}

/** The whole answer. */
export function chatAnswer(format: ChatFormat, outcome: RequestOutcome): ChatCompletion {
  const { head, style, promptIds } = format;
  return {
    ...head,
    object: "chat.completion",
    choices: outcome.choices.map((choice, index) => ({
      index,
      message: { role: "assistant", content: choice.text },
      logprobs: format.logprobs ? chatLogprobs(choice.logprobs, style) : null,
      finish_reason: finishReason(choice.reason),
      stop_reason: choice.stop,
      ...(promptIds === undefined ? {} : { token_ids: choice.ids }),
    })),
    usage: usageBody([outcome.usage]),
    ...(promptIds === undefined ? {} : { prompt_token_ids: promptIds }),
    ...(outcome.promptLogprobs.length === 0
      ? {}
      : { prompt_logprobs: promptLogprobs(outcome.promptLogprobs, style.texts) }),
  };
}

interface ChunkChoice {
  readonly index: number;
  readonly delta: { readonly role?: "assistant"; readonly content?: string };
  readonly logprobs: ChatLogprobs | null;
  readonly finish_reason: "stop" | "length" | null;
  readonly stop_reason?: string | number | null;
  readonly token_ids?: readonly number[];
}

type TextPart = Pick<Extract<RequestEvent, { kind: "token" }>, "index" | "text" | "ids" | "logprobs">;

/** The answer in chunks. */
export class ChatChunks implements ChunkWriter {
  readonly #format: ChatFormat;
  #generated = 0;

  /** Writes chunks of one request. */
  constructor(format: ChatFormat) {
    this.#format = format;
  }

  /** One chunk with the role for each choice. */
  *open(): Iterable<object> {
    const { n, promptIds } = this.#format;
    for (let index = 0; index < n; index++) {
      const chunk = this.#chunk({
        index,
        delta: { role: "assistant", content: "" },
        logprobs: null,
        finish_reason: null,
      });
      yield promptIds === undefined ? chunk : { ...chunk, prompt_token_ids: promptIds };
    }
  }

  /** Chunks for an event. */
  *write(_source: number, event: Exclude<RequestEvent, { kind: "end" }>): Iterable<object> {
    switch (event.kind) {
      case "prompt":
        break;
      case "token":
        this.#generated += event.ids.length;
        yield* this.#text(event);
        break;
      case "choice-end":
        yield* this.#text({ ...event, ids: [] });
        yield* this.#end(event);
        break;
      default:
        event satisfies never;
    }
  }

  /** The last chunk. */
  usage(usage: UsageBody): object {
    return { ...this.#format.head, object: "chat.completion.chunk", choices: [], usage };
  }

  *#text({ index, text, ids, logprobs = [] }: TextPart): Iterable<object> {
    const { promptIds, style } = this.#format;
    const wantsIds = promptIds !== undefined && ids.length > 0;
    if (text === "" && !wantsIds && logprobs.length === 0) return;
    yield this.#chunk({
      index,
      delta: { content: text },
      logprobs: logprobs.length === 0 ? null : chatLogprobs(logprobs, style),
      finish_reason: null,
      ...(wantsIds ? { token_ids: ids } : {}),
    });
  }

  *#end({ index, reason, stop }: Extract<RequestEvent, { kind: "choice-end" }>): Iterable<object> {
    if (reason !== "stop" && reason !== "length") return;
    yield this.#chunk({ index, delta: {}, logprobs: null, finish_reason: reason, stop_reason: stop ?? null });
  }

  #chunk(choice: ChunkChoice): object {
    const { head, continuousUsage, promptTokens } = this.#format;
    const chunk = { ...head, object: "chat.completion.chunk", choices: [choice] };
    if (!continuousUsage) return chunk;
    return { ...chunk, usage: usageBody([{ promptTokens, cachedTokens: 0, completionTokens: this.#generated }]) };
  }
}
