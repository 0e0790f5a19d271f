/**
 * The front of the total order: the tokens certain to come first, found among the device's candidates and the adjusted
 * tokens without a look at the rest of the vocabulary.
 *
 * @module
 */
import type { Adjustments } from "./adjustments.ts";
import { type LogitRow, precedes, type Token } from "./row.ts";

/** Reusable buffers for the head of one row at a time. */
export class Head {
  #ids = new Int32Array(64);
  #logits = new Float64Array(64);
  #length = 0;

  /** Tokens in the head; 0 when adjustments push every candidate below the rest. */
  get length(): number {
    return this.#length;
  }

  /** Their ids in total order; {@linkcode length} of them count. */
  get ids(): Int32Array {
    return this.#ids;
  }

  /** Their adjusted logits. */
  get logits(): Float64Array {
    return this.#logits;
  }

  /** Finds the head of a row whose adjustments have been applied. Tokens at -Infinity are left out. */
  fill(row: LogitRow, adjustments: Adjustments): void {
    const { ids, logits } = row.top;
    const adjusted = adjustments.tokens;
    const capacity = ids.length + adjusted.length;
    if (this.#ids.length < capacity) {
      this.#ids = new Int32Array(capacity * 2);
      this.#logits = new Float64Array(capacity * 2);
    }
    this.#length = 0;
    for (let i = 0; i < ids.length && logits[i] > -Infinity; i++) {
      if (adjusted.length === 0 || !adjustments.has(ids[i])) this.#append(ids[i], logits[i]);
    }
    const sorted = this.#length;
    for (const token of adjusted) {
      if (token.logit > -Infinity && reachesHead(row, token)) this.#append(token.id, token.logit);
    }
    if (this.#length > sorted) this.#sort();
  }

  #append(id: number, logit: number): void {
    this.#ids[this.#length] = id;
    this.#logits[this.#length++] = logit;
  }

  #sort(): void {
    const tokens = Array.from(
      this.#ids.subarray(0, this.#length),
      (id, i): Token => ({ id, logit: this.#logits[i] }),
    ).sort((a, b) => precedes(a, b) ? -1 : 1);
    tokens.forEach(({ id, logit }, i) => {
      this.#ids[i] = id;
      this.#logits[i] = logit;
    });
  }
}

/**
 * Whether an adjusted token belongs to the head: unadjusted tokens that are no candidates come after the last candidate,
 * so a token that does not is ahead of them all.
 */
export function reachesHead(row: LogitRow, token: Token): boolean {
  const { ids, logits } = row.top;
  if (ids.length === row.vocab) return true;
  const last = ids.length - 1;
  return token.logit > logits[last] || (token.logit === logits[last] && token.id <= ids[last]);
}
