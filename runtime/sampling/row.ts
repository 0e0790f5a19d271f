/**
 * A row of logits as a device reports it, and the one total order of its tokens.
 *
 * @module
 */

/** Logits of one position with what the device computed beside them. Read only. */
export interface LogitRow {
  /** Logits there are. */
  readonly vocab: number;
  /** Logits, [vocab], natural scale. To read them may cost a copy from a device; the rest is at hand. */
  readonly logits: Float32Array;
  /** ln Σ exp(logit), right to a relative error of 1e-4 of the sum. */
  readonly logSumExp: number;
  /** The largest logits, descending, ties by lower id first. */
  readonly top: { readonly ids: Int32Array; readonly logits: Float32Array };
}

/** A token and its logit. */
export interface Token {
  /** Token. */
  readonly id: number;
  /** Its logit. */
  readonly logit: number;
}

/** Whether token `a` comes before token `b`: the larger logit first, equal ones by lower id. */
export function precedes(a: Token, b: Token): boolean {
  return a.logit > b.logit || (a.logit === b.logit && a.id < b.id);
}

/** The error for logits that hold NaN, Infinity or nothing but -Infinity; names the first such token. */
export function badLogits(logits: ArrayLike<number>): RangeError {
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id];
    if (Number.isNaN(logit) || logit === Infinity) {
      return new RangeError(`Cannot sample a token: wanted finite logits, got ${logit} for token ${id}`);
    }
  }
  return new RangeError("Cannot sample a token: wanted a token with a logit above -Infinity, got none");
}
