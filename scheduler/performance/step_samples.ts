/**
 * A bounded memory of step times that keeps rare situations beside the common one.
 *
 * @module
 */

/** One timed step. */
export interface StepSample {
  /** Sequences that computed one token each. */
  readonly batch: number;
  /** Tokens attended. */
  readonly contextTokens: number;
  /** Time, ms. */
  readonly ms: number;
  /** Steps seen before it. */
  readonly step: number;
}

/** Latest steps that are kept of each situation. */
const CELL_SAMPLES = 8;

/**
 * The latest steps of each cell of similar batch and context: an hour of one kind of load does not push out what was learnt
 * about another. Beyond `capacity` the cell that was seen least lately goes.
 */
export class StepSamples {
  readonly #capacity: number;
  /** Least lately seen first. */
  readonly #cells = new Map<string, StepSample[]>();
  #size = 0;

  /** Makes an empty memory of at most `capacity` samples. */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** Samples kept. */
  get size(): number {
    return this.#size;
  }

  /** Keeps a sample; its cell's oldest goes. */
  add(sample: StepSample): void {
    const key = cellOf(sample);
    const cell = this.#cells.get(key) ?? [];
    this.#cells.delete(key);
    this.#cells.set(key, cell);
    cell.push(sample);
    this.#size++;
    if (cell.length > CELL_SAMPLES) {
      cell.shift();
      this.#size--;
    }
    for (const [stale, { length }] of this.#cells) {
      if (this.#size <= this.#capacity || stale === key) return;
      this.#cells.delete(stale);
      this.#size -= length;
    }
  }

  /** Every sample kept. */
  all(): readonly StepSample[] {
    return [...this.#cells.values()].flat();
  }
}

/** Half octaves of the batch, octaves of the context. */
function cellOf({ batch, contextTokens }: StepSample): string {
  return `${Math.round(2 * Math.log2(batch))} ${Math.round(Math.log2(contextTokens + 1))}`;
}
