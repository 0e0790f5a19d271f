/**
 * Asking a server over HTTP as any client does, and the answer in a form that compares number by number.
 *
 * @module
 */

/** What is asked: a plain completion. */
export interface Question {
  /** Prompt, token ids. */
  readonly prompt: readonly number[];
  /** Tokens to generate; always so many, the model's end tokens do not count. */
  readonly maxTokens: number;
  /** Softness of the choice. @default {0} */
  readonly temperature?: number;
  /** Seed of the choices. @default {1} */
  readonly seed?: number;
  /** Whether the answer comes in events. @default {false} */
  readonly stream?: boolean;
}

/** A token of an answer. */
export interface AnsweredToken {
  /** Its id. */
  readonly id: number;
  /** Its log-probability. */
  readonly logprob: number;
  /** The likeliest ids with their log-probabilities. */
  readonly top: Readonly<Record<string, number>>;
}

/** An answer. */
export interface Answer {
  /** Tokens in order. */
  readonly tokens: readonly AnsweredToken[];
  /** Its text. */
  readonly text: string;
  /** Why it ended. */
  readonly finish: string | null;
}

/** A server that refused, or gave up. */
export class AnswerError extends Error {
  /** Error name. */
  override readonly name = "AnswerError";
  /** HTTP status; 0 when the connection broke. */
  readonly status: number;
  /** Code of the error body. */
  readonly code: string;
  /** What had come of a streamed answer. */
  readonly tokens: readonly AnsweredToken[];
  /** Makes one. */
  constructor(
    message: string,
    options: {
      readonly status: number;
      readonly code: string;
      readonly tokens?: readonly AnsweredToken[];
      readonly cause?: unknown;
    },
  ) {
    super(message, { cause: options.cause });
    this.status = options.status;
    this.code = options.code;
    this.tokens = options.tokens ?? [];
  }
}

interface ChoiceBody {
  readonly text: string;
  readonly finish_reason: string | null;
  readonly token_ids?: readonly number[];
  readonly logprobs: {
    readonly token_logprobs: readonly number[];
    readonly top_logprobs: readonly Readonly<Record<string, number>>[];
  } | null;
}

interface ReplyBody {
  readonly choices?: readonly ChoiceBody[];
  readonly error?: { readonly message: string; readonly code: string | null };
}

/** Likeliest tokens asked for with each token. */
const TOP = 5;

/**
 * Asks.
 *
 * @throws {AnswerError} when the server refuses, gives up in the middle, or goes away.
 * @throws {DOMException} when there is no answer in time.
 */
export async function ask(
  url: string,
  question: Question,
  options: {
    /** Most time for all of it, ms. */
    readonly timeoutMs: number;
    /** Told how many tokens have come, of a streamed answer. */
    readonly onTokens?: (count: number) => void;
    /** Tokens of a streamed answer after which the client goes away. */
    readonly abortAfter?: number;
  },
): Promise<Answer> {
  const { prompt, maxTokens, temperature = 0, seed = 1, stream = false } = question;
  const signal = AbortSignal.timeout(options.timeoutMs);
  const tokens: AnsweredToken[] = [];
  try {
    const response = await fetch(`${url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        prompt,
        max_tokens: maxTokens,
        temperature,
        seed,
        stream,
        logprobs: TOP,
        ignore_eos: true,
        return_token_ids: true,
        return_tokens_as_token_ids: true,
      }),
      signal,
    });
    if (!stream || !response.ok) return wholeAnswer(await response.json(), response.status);
    return await streamedAnswer(response, { ...options, tokens });
  } catch (error) {
    if (error instanceof AnswerError || signal.aborted) throw error;
    const message = `Cannot read the answer of ${url}: ${error}`;
    throw new AnswerError(message, { status: 0, code: "broken", tokens, cause: error });
  }
}

function wholeAnswer({ choices, error }: ReplyBody, status: number): Answer {
  if (error !== undefined) throw new AnswerError(error.message, { status, code: error.code ?? "" });
  const [choice] = choices ?? [];
  return { tokens: tokensOf(choice), text: choice.text, finish: choice.finish_reason };
}

async function streamedAnswer(
  response: Response,
  options: {
    readonly tokens: AnsweredToken[];
    readonly onTokens?: (count: number) => void;
    readonly abortAfter?: number;
  },
): Promise<Answer> {
  const { tokens, onTokens = () => {}, abortAfter = Infinity } = options;
  const { status } = response;
  let text = "";
  let finish: string | null = null;
  for await (const event of events(response)) {
    if (event === "[DONE]") return { tokens, text, finish };
    const { choices, error }: ReplyBody = JSON.parse(event);
    if (error !== undefined) throw new AnswerError(error.message, { status, code: error.code ?? "", tokens });
    for (const choice of choices ?? []) {
      tokens.push(...tokensOf(choice));
      text += choice.text;
      finish = choice.finish_reason ?? finish;
    }
    if (tokens.length > 0) onTokens(tokens.length);
    // Leaving the loop cancels the body.
    if (tokens.length >= abortAfter) return { tokens, text, finish: "aborted" };
  }
  throw new AnswerError("Cannot read the answer: it ended without [DONE]", { status, code: "broken", tokens });
}

function tokensOf({ token_ids: ids = [], logprobs }: ChoiceBody): AnsweredToken[] {
  if (logprobs === null) return [];
  const { token_logprobs, top_logprobs } = logprobs;
  if (ids.length !== token_logprobs.length || ids.length !== top_logprobs.length) {
    throw new RangeError(`Cannot read the answer: ${ids.length} ids with ${token_logprobs.length} log-probabilities`);
  }
  return ids.map((id, i) => ({ id, logprob: token_logprobs[i], top: top_logprobs[i] }));
}

async function* events(response: Response): AsyncGenerator<string> {
  if (response.body === null) return;
  let rest = "";
  for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
    rest += part;
    const parts = rest.split("\n\n");
    rest = parts.pop() ?? "";
    for (const event of parts) if (event.startsWith("data: ")) yield event.slice(6);
  }
}
