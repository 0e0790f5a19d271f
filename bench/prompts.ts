/**
 * Prompts of real text, as token ids of the default model and as the same text.
 *
 * @module
 */

/** The prompts of the rows. */
export interface Prompts {
  /** 128 ids and their text. */
  readonly short: TextPrompt;
  /** 512 ids and their text. */
  readonly medium: TextPrompt;
  /** 2,000 ids and their text. */
  readonly long: TextPrompt;
  /** Eight different prompts of 128 ids. */
  readonly batch: readonly (readonly number[])[];
}

/** A prompt. */
export interface TextPrompt {
  /** Ids, no BOS. */
  readonly ids: readonly number[];
  /** Text, for peers that take nothing else. */
  readonly text: string;
}

/** Characters of the 511-token text that make 128 tokens. */
const SHORT_CHARACTERS = 452;
const SHORT_TOKENS = 128;
const BATCH = 8;

/** Reads the prompts from the test data of the default model. */
export function readPrompts(): Prompts {
  const file = new URL("../tests/testdata/golden/logits.json", import.meta.url);
  const { cases }: { cases: (TextPrompt & { n: number })[] } = JSON.parse(Deno.readTextFileSync(file));
  const find = (tokens: number) => {
    const found = cases.find(({ n }) => n === tokens);
    if (found === undefined) throw new RangeError(`Cannot read prompts: wanted one of ${tokens} tokens, got none`);
    return found;
  };
  const source = find(511);
  return {
    short: { ids: source.ids.slice(0, SHORT_TOKENS), text: source.text.slice(0, SHORT_CHARACTERS) },
    medium: find(512),
    long: find(2000),
    batch: Array.from({ length: BATCH }, (_, i) => source.ids.slice(BATCH * i, BATCH * i + SHORT_TOKENS)),
  };
}

/**
 * Prompts of 128 ids that begin differently each time, so that no prefix cache can help: pieces of a longer text behind
 * one id drawn from `seed`.
 */
export class FreshPrompts {
  readonly #ids: readonly number[];
  #state: number;

  /** Draws from `ids`. */
  constructor(ids: readonly number[], seed: number) {
    this.#ids = ids;
    this.#state = seed >>> 0;
  }

  /** The next prompt. */
  next(): number[] {
    const start = this.#draw(this.#ids.length - SHORT_TOKENS);
    const first = this.#ids[this.#draw(this.#ids.length)];
    return [first, ...this.#ids.slice(start, start + SHORT_TOKENS - 1)];
  }

  /** A number below `bound`, by a linear congruential generator (Numerical Recipes). */
  #draw(bound: number): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    return Math.floor(this.#state / 2 ** 32 * bound);
  }
}
