/**
 * Logit bias, penalties and the ban on early end tokens: all changes to single logits. Only the tokens they concern are
 * visited; every other token keeps the model's logit.
 *
 * @module
 */
import type { SamplingParams } from "../engine/request.ts";
import type { Token } from "./row.ts";

interface AdjustedToken extends Token {
  logit: number;
  bias: number;
  outputCount: number;
  /** In the prompt or in the output. */
  seen: boolean;
  /** Ends the text, so it is banned before `minTokens`. */
  ends: boolean;
}

/** The tokens of one sequence whose logits may differ from the model's. */
export class Adjustments {
  readonly #repetition: number;
  readonly #presence: number;
  readonly #frequency: number;
  readonly #minTokens: number;
  readonly #tokens: AdjustedToken[] = [];
  #accepted = 0;

  /**
   * Makes the adjustments of an empty output.
   *
   * @throws {RangeError} when `logitBias` names a token outside the vocabulary.
   */
  constructor(
    params: SamplingParams,
    context: { readonly vocab: number; readonly prompt: ArrayLike<number>; readonly eos: readonly number[] },
  ) {
    this.#repetition = params.repetitionPenalty ?? 1;
    this.#presence = params.presencePenalty ?? 0;
    this.#frequency = params.frequencyPenalty ?? 0;
    this.#minTokens = params.minTokens ?? 0;
    if (this.#repetition !== 1) {
      for (const id of Int32Array.from(new Set(Array.from(context.prompt))).sort()) this.#token(id).seen = true;
    }
    for (const [id, bias] of params.logitBias ?? []) {
      if (!(Number.isInteger(id) && id >= 0 && id < context.vocab)) {
        throw new RangeError(`Cannot bias token ${id}: wanted an id from 0 to ${context.vocab - 1}`);
      }
      this.#token(id).bias = bias;
    }
    if (this.#minTokens > 0) {
      for (const id of [...(params.ignoreEos ? [] : context.eos), ...(params.stopTokenIds ?? [])]) {
        if (id >= 0 && id < context.vocab) this.#token(id).ends = true;
      }
    }
  }

  /** Tokens of the output so far. */
  get accepted(): number {
    return this.#accepted;
  }

  /** Whether every token keeps the model's logit, whatever is accepted. */
  get plain(): boolean {
    return this.#tokens.length === 0 && this.#repetition === 1 && this.#presence === 0 && this.#frequency === 0;
  }

  /** The concerned tokens in ascending order of id, with their logits as of the last {@linkcode apply}. */
  get tokens(): readonly Token[] {
    return this.#tokens;
  }

  /** Whether the token is a concerned one. */
  has(id: number): boolean {
    return this.#tokens[this.#lowerBound(id)]?.id === id;
  }

  /** Computes the concerned tokens' logits for the next position, rounded to f32: bias, penalties, ban. */
  apply(logits: Float32Array): void {
    const early = this.#accepted < this.#minTokens;
    for (const token of this.#tokens) {
      let logit = logits[token.id] + token.bias;
      if (token.seen) logit = logit > 0 ? logit / this.#repetition : logit * this.#repetition;
      if (token.outputCount > 0) logit -= this.#presence + this.#frequency * token.outputCount;
      token.logit = early && token.ends ? -Infinity : Math.fround(logit);
    }
  }

  /** The whole row, the concerned tokens as of the last {@linkcode apply}; the given row itself when there are none. */
  adjusted(logits: Float32Array): Float32Array {
    if (this.#tokens.length === 0) return logits;
    const copy = logits.slice();
    for (const token of this.#tokens) copy[token.id] = token.logit;
    return copy;
  }

  /** Counts a token of the output. */
  accept(id: number): void {
    this.#accepted++;
    if (this.#repetition === 1 && this.#presence === 0 && this.#frequency === 0) return;
    const token = this.#token(id);
    token.seen = true;
    token.outputCount++;
  }

  #lowerBound(id: number): number {
    let low = 0;
    let high = this.#tokens.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#tokens[middle].id < id) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #token(id: number): AdjustedToken {
    const place = this.#lowerBound(id);
    const found = this.#tokens[place];
    if (found?.id === id) return found;
    const token = { id, logit: NaN, bias: 0, outputCount: 0, seen: false, ends: false };
    this.#tokens.splice(place, 0, token);
    return token;
  }
}
