/**
 * The fast path: draws from the head alone when bounds on the mass of the rest prove that a look at the rest would not
 * change the outcome.
 *
 * @module
 */
import type { Adjustments } from "./adjustments.ts";
import { expOfMinus } from "./exponential.ts";
import type { Filters } from "./filters.ts";
import { type Head, reachesHead } from "./head.ts";
import type { LogitRow } from "./row.ts";

/** Relative error allowed to the device's sum of exponentials. */
const DEVICE_SUM_ERROR = 1e-4;
/** Relative difference allowed between sums taken in different orders. */
const ROUNDING = 1e-9;

/** Bounds on a mass. */
interface Bounds {
  readonly low: number;
  readonly high: number;
}

/** Draws from the head of a row. Holds scratch memory. */
export class HeadDraw {
  #cumulative = new Float64Array(64);

  /** The token that `u`, uniform in [0, 1), selects; undefined when the head does not determine it. */
  tryDraw(
    u: number,
    input: {
      readonly row: LogitRow;
      readonly adjustments: Adjustments;
      readonly head: Head;
      readonly filters: Filters;
    },
  ): number | undefined {
    const { head, filters } = input;
    if (head.length === 0) return undefined;
    const kept = Math.min(head.length, filters.topK);
    if (this.#cumulative.length < kept) this.#cumulative = new Float64Array(kept * 2);
    let mass = 0;
    let deep = kept;
    for (let i = 0; i < kept; i++) {
      const x = (head.logits[0] - head.logits[i]) * filters.inverseTemperature;
      if (x > filters.depth && deep === kept) deep = i;
      mass += expOfMinus(x);
      this.#cumulative[i] = mass;
    }
    let bounds: Bounds = { low: mass, high: mass };
    if (filters.topK > head.length) {
      const rest = restMass(input);
      bounds = { low: mass + (filters.topK === Infinity ? rest.low : 0), high: mass + rest.high };
    }
    // Adjustments far below a very cold row overflow the bound.
    if (!(bounds.high < Infinity)) return undefined;
    if (filters.topP < 1) {
      // The cut holds at least topP of the mass, and all of the head when it lies past it.
      const least = filters.topP * bounds.low * (1 - ROUNDING);
      const most = filters.topP * bounds.high * (1 + ROUNDING);
      bounds = {
        low: this.#through(this.#first(least, kept), { kept, beyond: Math.max(mass, least) }),
        high: this.#through(this.#first(most, kept), { kept, beyond: bounds.high }),
      };
    }
    if (deep < kept) {
      const cut = this.#cumulative[deep - 1];
      bounds = { low: Math.min(bounds.low, cut), high: Math.min(bounds.high, cut) };
    } else if (filters.depth < Infinity) {
      bounds = { low: Math.min(bounds.low, mass), high: bounds.high };
    }
    const least = this.#first(u * bounds.low * (1 - ROUNDING), kept);
    const most = this.#first(u * bounds.high * (1 + ROUNDING), kept);
    return least === most && least < kept ? head.ids[least] : undefined;
  }

  /** Index of the first token whose cumulative mass is above `target`; `kept` when none is. */
  #first(target: number, kept: number): number {
    let index = 0;
    while (index < kept && this.#cumulative[index] <= target) index++;
    return index;
  }

  /** Mass up to and including token `index`; `beyond` when it lies past the head. */
  #through(index: number, { kept, beyond }: { readonly kept: number; readonly beyond: number }): number {
    return index < kept ? this.#cumulative[index] : beyond;
  }
}

/**
 * Bounds on the mass of the tokens outside the head. With y = exp(logit - largest) for an unadjusted one and a the
 * inverse temperature, y^a lies between y and y ymax^(a - 1) (which is which depends on a < 1), and Σ y^a is at most
 * N^(1 - a) (Σ y)^a for a < 1 by concavity; Σ y follows from the device's sum.
 */
function restMass(
  { row, adjustments, head, filters }: {
    readonly row: LogitRow;
    readonly adjustments: Adjustments;
    readonly head: Head;
    readonly filters: Filters;
  },
): Bounds {
  const { ids, logits } = row.top;
  const largest = logits[0];
  const smallest = logits[ids.length - 1];
  const a = filters.inverseTemperature;
  let adjustedMass = 0;
  let count = row.vocab - ids.length;
  if (count === 0 || smallest === -Infinity) return { low: 0, high: 0 };
  const sum = Math.exp(row.logSumExp - largest);
  let unadjusted = sum;
  for (const logit of logits) unadjusted -= expOfMinus(largest - logit);
  for (const token of adjustments.tokens) {
    if (token.logit > -Infinity && !reachesHead(row, token)) {
      adjustedMass += expOfMinus((head.logits[0] - token.logit) * a);
    }
    const logit = row.logits[token.id];
    if (logit < smallest || (logit === smallest && token.id > ids[ids.length - 1])) {
      unadjusted -= expOfMinus(largest - logit);
      count--;
    }
  }
  const low = Math.max(0, unadjusted - DEVICE_SUM_ERROR * sum);
  const high = Math.max(0, unadjusted + DEVICE_SUM_ERROR * sum);
  const depth = largest - smallest;
  const shift = Math.exp((largest - head.logits[0]) * a);
  const scaled = Math.exp(-depth * (a - 1));
  const byCount = count * Math.exp(-depth * a);
  if (a >= 1) {
    return {
      low: adjustedMass + (a === 1 ? low * shift : 0),
      high: adjustedMass + Math.min(high * scaled, byCount) * shift,
    };
  }
  return {
    low: adjustedMass + low * scaled * shift,
    high: adjustedMass + Math.min(byCount, count ** (1 - a) * high ** a) * shift,
  };
}
