/**
 * Chooses the next token of one sequence.
 *
 * The definition. Let l be the model's logits.
 *
 * 1. Adjust, in this order: add `logitBias`; divide (when positive) or multiply (otherwise) by `repetitionPenalty` the
 *    logits of tokens seen in prompt or output; subtract `presencePenalty` + `frequencyPenalty` * count from those of
 *    tokens seen in the output; while fewer than `minTokens` tokens are accepted, set end and stop ids to -Infinity. Round to f32.
 * 2. Put the tokens in total order: larger adjusted logit first, equal ones by lower id. Temperature 0 takes the first.
 * 3. Weigh each token exp((l - largest l) / temperature).
 * 4. Keep a prefix of the order: `topK` tokens; of those the shortest prefix that reaches `topP` of their mass; of
 *    those the tokens that weigh at least `minP` times the first.
 * 5. With u uniform in [0, 1), a function of seed and number of accepted tokens alone, take the first kept token at
 *    which the sum of weights exceeds u times the mass of the kept tokens.
 *
 * The fast path computes the same from the device's candidates wherever bounds on the rest prove the outcome.
 *
 * @module
 */
import type { SamplingParams, TokenLogprob } from "../engine/request.ts";
import type { NextToken } from "../device/device.ts";
import { Adjustments } from "./adjustments.ts";
import { type Filters, filtersOf } from "./filters.ts";
import { drawFromAll, firstToken } from "./full_draw.ts";
import { Head } from "./head.ts";
import { HeadDraw } from "./head_draw.ts";
import { tokenLogprob } from "./logprob.ts";
import { uniform } from "./random.ts";
import { badLogits, type LogitRow } from "./row.ts";

export { tokenLogprob } from "./logprob.ts";
export type { LogitRow } from "./row.ts";

/** What a sampler knows of its sequence. */
export interface SamplerContext {
  /** Rows of the vocabulary. */
  readonly vocab: number;
  /** Prompt ids. */
  readonly prompt: ArrayLike<number>;
  /** Ids that end the text. */
  readonly eos: readonly number[];
  /** Seed, an integer of up to 53 bits. */
  readonly seed: number;
  /** Whether rows may be decided from the candidates alone; the tokens are the same. @default {true} */
  readonly fastPath?: boolean;
}

/**
 * The sampler of one sequence. Its state is the accepted tokens: a new sampler of the same parameters and seed that
 * accepts the same tokens chooses the same next one.
 */
export class Sampler {
  readonly #context: SamplerContext;
  readonly #adjustments: Adjustments;
  readonly #filters: Filters | "greedy";
  readonly #logprobs: number | undefined;
  readonly #head = new Head();
  readonly #headDraw = new HeadDraw();

  /**
   * Makes a sampler that has accepted nothing.
   *
   * @throws {RangeError} when `logitBias` names a token outside the vocabulary.
   */
  constructor(params: SamplingParams, context: SamplerContext) {
    this.#context = context;
    this.#adjustments = new Adjustments(params, context);
    this.#filters = params.temperature === 0 ? "greedy" : filtersOf(params);
    this.#logprobs = params.logprobs;
  }

  /**
   * Chooses a token, with its log-probability when `logprobs` is set. Repeats its choice until {@linkcode accept}.
   *
   * @throws {RangeError} when a logit is NaN or Infinity, when no token has a logit above -Infinity, or when the row
   * has another size than the vocabulary.
   */
  sample(row: LogitRow): { id: number; logprob?: TokenLogprob } {
    if (row.vocab !== this.#context.vocab) {
      throw new RangeError(`Cannot sample a token: wanted ${this.#context.vocab} logits, got ${row.vocab}`);
    }
    // The sum of exponentials is NaN or Infinity when a logit is, and 0 when all are -Infinity.
    if (!Number.isFinite(row.logSumExp)) throw badLogits(row.logits);
    const id = this.#choose(row);
    return this.#logprobs === undefined ? { id } : { id, logprob: tokenLogprob(row, id, this.#logprobs) };
  }

  /** How the next token is going to be chosen, as far as that can be said without the tokens before it. */
  get next(): NextToken {
    const { accepted, plain } = this.#adjustments;
    if (!plain) return { mode: { kind: "host" }, accepted };
    if (this.#filters === "greedy") return { mode: { kind: "greedy" }, accepted };
    return { mode: { kind: "draw", ...this.#filters, seed: this.#context.seed }, accepted };
  }

  /** Appends a token to the output. */
  accept(id: number): void {
    this.#adjustments.accept(id);
  }

  #choose(row: LogitRow): number {
    const adjustments = this.#adjustments;
    const filters = this.#filters;
    const fast = this.#context.fastPath ?? true;
    if (fast && filters === "greedy" && adjustments.tokens.length === 0) return row.top.ids[0];
    if (adjustments.tokens.length > 0) adjustments.apply(row.logits);
    this.#head.fill(row, adjustments);
    if (filters === "greedy") {
      return fast && this.#head.length > 0 ? this.#head.ids[0] : firstToken(adjustments.adjusted(row.logits)).id;
    }
    const u = uniform(this.#context.seed, adjustments.accepted);
    const proven = fast ? this.#headDraw.tryDraw(u, { row, adjustments, head: this.#head, filters }) : undefined;
    return proven ?? drawFromAll(u, adjustments.adjusted(row.logits), filters);
  }
}
