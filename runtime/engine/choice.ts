/**
 * One continuation of a request: from rows of logits to tokens, text and the reason it ends.
 *
 * @module
 */
import type { Sequence } from "../../scheduler/sequence.ts";
import type { NextToken } from "../device/device.ts";
import type { LogitRow } from "../sampling/row.ts";
import { Sampler } from "../sampling/sampler.ts";
import type { TokenTable } from "../text/codec.ts";
import { Detokenizer } from "../text/detokenizer.ts";
import { StopMatcher } from "../text/stop_matcher.ts";
import type { FinishReason, SamplingParams, TokenLogprob } from "./request.ts";

/** Makes a {@linkcode Choice}. */
export interface ChoiceOptions {
  /** Place among the choices of its request. */
  readonly index: number;
  /** Tokens it continues. */
  readonly sequence: Sequence;
  /** How tokens are chosen and what ends the text. */
  readonly sampling: SamplingParams;
  /** Seed of this choice. */
  readonly seed: number;
  /** Rows of the vocabulary. */
  readonly vocab: number;
  /** Bytes of every token. */
  readonly vocabulary: TokenTable;
  /** Ids that end generation. */
  readonly eos: readonly number[];
  /** Tokens that were generated and told before. @default {[]} */
  readonly resumed?: readonly number[];
}

/** How a choice ends. */
export interface ChoiceEnd {
  /** Why. */
  readonly reason: FinishReason;
  /** Text held back until now. */
  readonly text: string;
  /** The stop string or stop id that ended it; absent for the model's own end token. */
  readonly stop?: string | number;
}

/** A generated token and what became of it. */
export interface TakenToken {
  /** Token. */
  readonly id: number;
  /** Text that became certain. */
  readonly text: string;
  /** Log-probability, when asked for. */
  readonly logprob?: TokenLogprob;
  /** Set when the token is the last one. */
  readonly end?: ChoiceEnd;
}

/** Decoding state of one sequence. Everything in it follows from the tokens, so preemption does not touch it. */
export class Choice {
  /** Place among the choices of its request. */
  readonly index: number;
  /** Tokens it continues. */
  readonly sequence: Sequence;
  readonly #sampler: Sampler;
  readonly #detokenizer: Detokenizer;
  readonly #stops: StopMatcher;
  readonly #sampling: SamplingParams;
  readonly #eos: readonly number[];
  #generated = 0;
  #resumedEnd: ChoiceEnd | undefined;

  /**
   * Makes a choice that goes on after the resumed tokens.
   *
   * @throws {RangeError} when a bias names a token outside the vocabulary, a stop string is empty, or resumed tokens go on
   * after the one that ends the choice.
   */
  constructor(options: ChoiceOptions) {
    const { sampling, sequence, vocab, eos, seed } = options;
    this.index = options.index;
    this.sequence = sequence;
    this.#sampling = sampling;
    this.#eos = sampling.ignoreEos ? [] : eos;
    this.#sampler = new Sampler(sampling, { vocab, eos, seed, prompt: sequence.prompt });
    this.#detokenizer = new Detokenizer(options.vocabulary, { skipSpecial: sampling.skipSpecial ?? true });
    this.#stops = new StopMatcher(sampling.stop ?? [], { includeStop: sampling.includeStop ?? false });
    for (const id of options.resumed ?? []) {
      if (this.#resumedEnd !== undefined) {
        throw new RangeError(
          `Cannot resume choice ${this.index}: wanted no token after the one that ends it, got ${id} after ` +
            `${this.#generated}`,
        );
      }
      this.#resumedEnd = this.#accept(id).end;
    }
  }

  /** How it ended, when the resumed tokens are all of it. */
  get resumedEnd(): ChoiceEnd | undefined {
    return this.#resumedEnd;
  }

  /**
   * Chooses the next token.
   *
   * @throws {RangeError} when the row holds no usable logits; nothing has changed then.
   */
  take(row: LogitRow): TakenToken {
    const { id, logprob } = this.#sampler.sample(row);
    return { ...this.#accept(id), logprob };
  }

  /** How the next token is going to be chosen. */
  get next(): NextToken {
    return this.#sampler.next;
  }

  /** How the choice ends when it is cut off before a token ended it. */
  cut(reason: FinishReason): ChoiceEnd {
    return this.#flush(reason);
  }

  #accept(id: number): TakenToken {
    this.#sampler.accept(id);
    this.#generated++;
    // The sampler chooses neither before `minTokens` tokens.
    const stopId = this.#sampling.stopTokenIds?.includes(id) ?? false;
    if (stopId || this.#eos.includes(id)) {
      const text = this.#sampling.includeStop ? this.#decode(id).text : "";
      return { id, text, end: { ...this.#flush("stop"), ...(stopId && { stop: id }) } };
    }
    const { text, stop } = this.#decode(id);
    if (stop !== undefined) return { id, text, end: { reason: "stop", text: "", stop } };
    const last = this.#generated >= this.sequence.maxTokens;
    return { id, text, ...(last && { end: this.#flush("length") }) };
  }

  get #minTokens(): number {
    return this.#sampling.minTokens ?? 0;
  }

  /** Text up to `minTokens` tokens passes by the stop strings. */
  #decode(id: number): { text: string; stop?: string } {
    const text = this.#detokenizer.push(id);
    return this.#generated < this.#minTokens ? { text } : this.#stops.push(text);
  }

  /** What the detokenizer and the stop strings still hold; its end may complete a stop string. */
  #flush(reason: FinishReason): ChoiceEnd {
    const { text, stop } = this.#stops.push(this.#detokenizer.flush());
    return stop === undefined ? { reason, text: text + this.#stops.flush() } : { reason: "stop", text, stop };
  }
}
