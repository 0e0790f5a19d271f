/**
 * sample - the next token of each row, from its 64 largest logits and lse = ln sum exp where these determine it, else from all.
 *
 * The definition is that of the sampler (runtime/sampling/sampler.ts) for rows without adjusted logits: tokens in total order,
 * larger logit first, equal ones by lower id; each weighs exp((l - largest l) * inverseTemperature); a prefix is kept: `topK`
 * tokens, of those the shortest prefix with `topP` of their mass, of those the tokens with
 * (largest l - l) * inverseTemperature <= `depth`; the draw takes the first kept token at which the sum of weights exceeds u
 * times the mass of the kept ones. u is number `accepted` of the stream of `seed`: Threefry-2x32 with 20 rounds, 53 bits.
 *
 * The candidates: the mass of the other tokens is bounded from lse (its sum may be wrong by 1e-4 of itself) and the smallest
 * candidate. A row is decided only if every cut and the draw come out the same at both bounds, widened by 1e-9. All logits:
 * a row is decided only if every target lies more than 4e-12 of the whole mass inside the token it falls into. Sums in f64 taken
 * in another order agree far below that (the host's exponentials are right to 1e-12), so what the kernel decides is what
 * the host's sampler chooses, token for token. A row that stays open is `undecided`: the host draws. Left to the host from the
 * start are rows whose logits are adjusted first (bias, penalties, a minimum of tokens).
 *
 * Needs: lse and candidates as the logits kernel gives them; `topK` at least 1; `inverseTemperature` positive and finite;
 * integers of up to 53 bits as seed.
 *
 * Roofline: latency: a few hundred bytes a row; all logits, about four times, where they are needed.
 *
 * Schedule: sample.cu. Test: sample_cuda_test.ts; reference_test.ts holds the reference against the sampler.
 *
 * @module
 */

/** How a row is sampled. */
export type SampleMode =
  /** The first token of the total order. */
  | { readonly kind: "greedy" }
  /** A draw. */
  | {
    readonly kind: "draw";
    /** 1 / temperature. */
    readonly inverseTemperature: number;
    /** Most tokens kept, a whole number; Infinity keeps all. */
    readonly topK: number;
    /** Share of the mass that the kept tokens reach; 1 keeps all. */
    readonly topP: number;
    /** Largest scaled distance from the largest logit that is kept; Infinity keeps all. */
    readonly depth: number;
    /** Seed of the stream, an integer of up to 53 bits. */
    readonly seed: number;
  }
  /** Not by the kernel. */
  | { readonly kind: "host" };

/** One row to sample. */
export interface SampleRow {
  /** How. */
  readonly mode: SampleMode;
  /** Tokens of the output so far; the kernel counts it up. */
  readonly accepted: number;
  /** Place of the token in the next step's input; absent: nowhere. */
  readonly slot?: number;
  /** Anything below 2^32; comes back with the result, so that the host can tell rows apart. @default {0} */
  readonly tag?: number;
}

/** What became of a row. */
export type SampleOutcome =
  /** A token. */
  | {
    readonly kind: "chosen";
    /** Token. */
    readonly id: number;
    /** Its logit. */
    readonly logit: number;
  }
  /** The token hangs on rounding, or on logits that were not given. */
  | { readonly kind: "undecided" }
  /** A logit is NaN or Infinity, or all are -Infinity. */
  | { readonly kind: "bad logits" }
  /** The row's mode asks for the host. */
  | { readonly kind: "host" };

/** Result of one row. */
export interface SampleResult {
  /** What became of it. */
  readonly outcome: SampleOutcome;
  /** ln sum exp(logit). */
  readonly logSumExp: number;
  /** Tag of the row. */
  readonly tag: number;
}

/** Relative error allowed to lse's sum of exponentials. */
export const SUM_ERROR = 1e-4;
/** Relative difference allowed between sums of candidates taken in different orders. */
export const ROUNDING = 1e-9;

/** Seeds of test data. */
export const SEEDS = { test: 91 } as const;
