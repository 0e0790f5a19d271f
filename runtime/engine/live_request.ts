/**
 * A request inside the engine: its choices, its clock, and the one way its events leave.
 *
 * @module
 */
import type { LogitRow } from "../sampling/row.ts";
import { tokenLogprob } from "../sampling/sampler.ts";
import type { Choice, ChoiceEnd, TakenToken } from "./choice.ts";
import type { RequestEvent, TokenLogprob, Usage } from "./request.ts";

/** Why a request failed, as its end event says it. */
export interface RequestFailure {
  /** For people. */
  readonly message: string;
  /** For programs. */
  readonly code: string;
  /** HTTP status that fits. */
  readonly status: number;
}

/** Makes a {@linkcode LiveRequest}. */
export interface LiveRequestOptions {
  /** Request id. */
  readonly id: string;
  /** Choices, at least one; the first leads. */
  readonly choices: readonly Choice[];
  /** Rivals to list per prompt token; absent: no prompt log-probabilities. */
  readonly promptLogprobs?: number;
  /** Tokens of all choices that were told before. @default {0} */
  readonly resumedTokens?: number;
  /** Takes the events; must not throw. */
  readonly listener: (event: RequestEvent) => void;
  /** Monotonic clock, ms. */
  readonly now: () => number;
}

/** Emits at most one `prompt`, one `choice-end` per choice, exactly one `end`, and nothing after it. */
export class LiveRequest {
  /** Request id. */
  readonly id: string;
  /** Choices; the first leads. */
  readonly choices: readonly Choice[];
  readonly #listener: (event: RequestEvent) => void;
  readonly #now: () => number;
  readonly #arrivedMs: number;
  readonly #promptTop: number | undefined;
  readonly #open: Set<Choice>;
  #promptLogprobs: (TokenLogprob | null)[] | undefined;
  #completionTokens: number;
  #startedMs: number | undefined;
  #firstTokenMs: number | undefined;
  #ended = false;

  /** Starts the request's clock. */
  constructor(options: LiveRequestOptions) {
    this.id = options.id;
    this.choices = options.choices;
    this.#listener = options.listener;
    this.#now = options.now;
    this.#arrivedMs = options.now();
    this.#promptTop = options.promptLogprobs;
    this.#promptLogprobs = options.promptLogprobs === undefined ? undefined : [null];
    this.#open = new Set(options.choices);
    this.#completionTokens = options.resumedTokens ?? 0;
  }

  /** Whether `end` was emitted. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Notes that a step with it begins. */
  start(): void {
    this.#startedMs ??= this.#now();
  }

  /** Takes the next row of the prompt, in order; the row of the last prompt token says nothing about the prompt. */
  takePromptRow(row: LogitRow): void {
    const { prompt } = this.choices[0].sequence;
    const position = this.#promptLogprobs?.length ?? prompt.length;
    if (position === prompt.length) return;
    this.#promptLogprobs?.push(tokenLogprob(row, prompt[position], this.#promptTop ?? 0));
  }

  /** Emits the prompt's log-probabilities once all of them are there. */
  emitPrompt(): void {
    const logprobs = this.#promptLogprobs;
    if (logprobs === undefined || logprobs.length < this.choices[0].sequence.prompt.length) return;
    this.#promptLogprobs = undefined;
    this.#emit({ kind: "prompt", logprobs });
  }

  /** Emits a token. */
  emitToken(choice: Choice, { id, text, logprob }: TakenToken): void {
    this.#firstTokenMs ??= this.#now();
    this.#completionTokens++;
    const logprobs = logprob && [logprob];
    this.#emit({ kind: "token", index: choice.index, ids: [id], text, ...(logprobs && { logprobs }) });
  }

  /** Ends a choice, and the request with the last one. */
  endChoice(choice: Choice, end: ChoiceEnd): void {
    if (!this.#open.delete(choice)) return;
    this.#emit({ kind: "choice-end", index: choice.index, ...end });
    if (this.#open.size === 0) this.#end();
  }

  /** Ends all open choices and the request. */
  abort(reason: "cancelled" | "error", error?: RequestFailure): void {
    const open = [...this.#open];
    this.#open.clear();
    for (const choice of open) {
      this.#emit({ kind: "choice-end", index: choice.index, ...choice.cut(reason), reason });
    }
    this.#end(error);
  }

  #end(error?: RequestFailure): void {
    if (this.#ended) return;
    const nowMs = this.#now();
    const startedMs = this.#startedMs ?? nowMs;
    const firstTokenMs = this.#firstTokenMs ?? nowMs;
    this.#emit({
      kind: "end",
      usage: this.#usage(),
      ...(error && { error }),
      timing: {
        queuedMs: startedMs - this.#arrivedMs,
        prefillMs: firstTokenMs - startedMs,
        decodeMs: nowMs - firstTokenMs,
      },
    });
  }

  #usage(): Usage {
    const [{ sequence }] = this.choices;
    return {
      promptTokens: sequence.prompt.length,
      cachedTokens: sequence.cachedTokens ?? 0,
      completionTokens: this.#completionTokens,
    };
  }

  #emit(event: RequestEvent): void {
    if (this.#ended) return;
    // Before the listener runs: it may cancel the request.
    this.#ended = event.kind === "end";
    this.#listener(event);
  }
}
