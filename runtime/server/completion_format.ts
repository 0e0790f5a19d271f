/**
 * Plain completion answers, whole and in chunks. Choice c of prompt p has the index p * n + c.
 *
 * @module
 */
import type { RequestEvent, TokenLogprob } from "../engine/request.ts";
import type { ChunkWriter } from "./event_stream.ts";
import { type AnswerHead, type ChoiceOutcome, finishReason, type RequestOutcome, usageBody } from "./generation.ts";
import { CompletionLogprobWriter, joinCompletionLogprobs, promptLogprobs, type TokenStyle } from "./logprob_format.ts";
import type { CompletionChoice, CompletionLogprobs, TextCompletion, UsageBody } from "./response_types.ts";

/** One prompt as the answer shows it. */
export interface ShownPrompt {
  /** Its ids. */
  readonly ids: readonly number[];
  /** Its text; empty unless it is echoed. */
  readonly echo: string;
  /** Characters of each id in that text. */
  readonly lengths: readonly number[];
}

/** What shapes a completion answer. */
export interface CompletionFormat {
  /** Id, time and names. */
  readonly head: AnswerHead;
  /** How tokens are shown. */
  readonly style: TokenStyle;
  /** Choices of each prompt. */
  readonly n: number;
  /** Prompts in order. */
  readonly prompts: readonly ShownPrompt[];
  /** Whether prompts are echoed. */
  readonly echo: boolean;
  /** Whether log-probabilities were asked for. */
  readonly logprobs: boolean;
  /** Whether log-probabilities of the prompt were asked for by name. */
  readonly promptLogprobs: boolean;
  /** Whether token ids were asked for. */
  readonly tokenIds: boolean;
  /** Whether every chunk carries the usage so far. */
  readonly continuousUsage: boolean;
}

/** The whole answer. */
export function completionAnswer(format: CompletionFormat, outcomes: readonly RequestOutcome[]): TextCompletion {
  return {
    ...format.head,
    object: "text_completion",
    choices: outcomes.flatMap((outcome, place) =>
      outcome.choices.map((choice, index) =>
        wholeChoice(format, { prompt: format.prompts[place], outcome, choice, index: place * format.n + index })
      )
    ),
    usage: usageBody(outcomes.map((outcome) => outcome.usage)),
  };
}

interface ChoiceParts {
  readonly prompt: ShownPrompt;
  readonly outcome: RequestOutcome;
  readonly choice: ChoiceOutcome;
  readonly index: number;
}

function wholeChoice(format: CompletionFormat, parts: ChoiceParts): CompletionChoice {
  const { prompt, outcome, choice, index } = parts;
  const { style } = format;
  return {
    index,
    text: prompt.echo + choice.text,
    logprobs: format.logprobs ? wholeLogprobs(format, parts) : null,
    finish_reason: finishReason(choice.reason),
    stop_reason: choice.stop,
    ...(format.tokenIds ? { token_ids: choice.ids, prompt_token_ids: prompt.ids } : {}),
    ...(format.promptLogprobs ? { prompt_logprobs: promptLogprobs(outcome.promptLogprobs, style.texts) } : {}),
  };
}

function wholeLogprobs(format: CompletionFormat, { prompt, outcome, choice }: ChoiceParts): CompletionLogprobs {
  const writer = new CompletionLogprobWriter(format.style);
  const echoed = format.echo
    ? [writer.write(prompt.ids, { entries: outcome.promptLogprobs, lengths: prompt.lengths })]
    : [];
  return joinCompletionLogprobs([...echoed, writer.write(choice.ids, { entries: choice.logprobs })]);
}

/** The answer in chunks. */
export class CompletionChunks implements ChunkWriter {
  readonly #format: CompletionFormat;
  readonly #writers: readonly CompletionLogprobWriter[];
  readonly #promptTokens: number;
  #generated = 0;

  /** Writes chunks of one request per prompt. */
  constructor(format: CompletionFormat) {
    this.#format = format;
    this.#writers = Array.from(
      { length: format.prompts.length * format.n },
      () => new CompletionLogprobWriter(format.style),
    );
    this.#promptTokens = format.prompts.reduce((sum, prompt) => sum + prompt.ids.length, 0);
  }

  /** One chunk with each choice's prompt, where its text or its ids were asked for. */
  *open(): Iterable<object> {
    const { n, prompts, tokenIds, echo, logprobs } = this.#format;
    if (!tokenIds && (!echo || logprobs)) return;
    for (const [place, prompt] of prompts.entries()) {
      for (let index = place * n; index < (place + 1) * n; index++) {
        // With log-probabilities the text follows together with theirs.
        const text = logprobs ? "" : prompt.echo;
        yield this.#chunk({ index, text, ...(tokenIds ? { prompt_token_ids: prompt.ids, token_ids: [] } : {}) });
      }
    }
  }

  /** Chunks for an event. */
  *write(source: number, event: Exclude<RequestEvent, { kind: "end" }>): Iterable<object> {
    const { n } = this.#format;
    switch (event.kind) {
      case "prompt":
        yield* this.#prompt(source, event.logprobs);
        break;
      case "token":
        this.#generated += event.ids.length;
        yield* this.#tokens(source * n + event.index, event);
        break;
      case "choice-end": {
        const index = source * n + event.index;
        const ended = event.reason === "stop" || event.reason === "length";
        if (ended) {
          yield this.#chunk({ index, text: event.text, finish_reason: event.reason, stop_reason: event.stop ?? null });
        } else if (event.text !== "") yield this.#chunk({ index, text: event.text });
        break;
      }
      default:
        event satisfies never;
    }
  }

  /** The last chunk. */
  usage(usage: UsageBody): object {
    return { ...this.#format.head, object: "text_completion", choices: [], usage };
  }

  *#prompt(source: number, entries: readonly (TokenLogprob | null)[]): Iterable<object> {
    const { n, echo, logprobs, prompts } = this.#format;
    if (!echo || !logprobs) return;
    const prompt = prompts[source];
    const { lengths } = prompt;
    for (let index = source * n; index < (source + 1) * n; index++) {
      yield this.#chunk({
        index,
        text: prompt.echo,
        logprobs: this.#writers[index].write(prompt.ids, { entries, lengths }),
      });
    }
  }

  *#tokens(index: number, event: Extract<RequestEvent, { kind: "token" }>): Iterable<object> {
    const { tokenIds, logprobs } = this.#format;
    if (event.text === "" && !tokenIds && !logprobs) return;
    yield this.#chunk({
      index,
      text: event.text,
      ...(logprobs ? { logprobs: this.#writers[index].write(event.ids, { entries: event.logprobs ?? [] }) } : {}),
      ...(tokenIds ? { token_ids: event.ids } : {}),
    });
  }

  #chunk(choice: { readonly index: number; readonly text: string; readonly [field: string]: unknown }): object {
    const chunk = {
      ...this.#format.head,
      object: "text_completion",
      choices: [{ logprobs: null, finish_reason: null, ...choice }],
    };
    if (!this.#format.continuousUsage) return chunk;
    const usage = usageBody([{
      promptTokens: this.#promptTokens,
      cachedTokens: 0,
      completionTokens: this.#generated,
    }]);
    return { ...chunk, usage };
  }
}
