/**
 * What a member counts, by name; the names are those of `LoadReport.counters`.
 *
 * @module
 */

/** Counters that only rise. */
export class Counters {
  readonly #values: Record<string, number> = {};

  /** Adds to a counter. */
  add(name: string, amount = 1): void {
    this.#values[name] = (this.#values[name] ?? 0) + amount;
  }

  /** All counters as they are now. */
  get values(): Readonly<Record<string, number>> {
    return { ...this.#values };
  }
}
