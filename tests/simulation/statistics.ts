/**
 * What runs have exercised: a scenario that never happens shows as a zero.
 *
 * @module
 */

/** Sums of counts by name, and the number of runs that had each. */
export class Statistics {
  readonly #sums = new Map<string, { sum: number; runs: number }>();

  /** Adds one run's counts. */
  add(counts: Readonly<Record<string, number>>): void {
    for (const [name, count] of Object.entries(counts)) {
      if (count === 0) continue;
      const entry = this.#sums.get(name) ?? { sum: 0, runs: 0 };
      entry.sum += count;
      entry.runs++;
      this.#sums.set(name, entry);
    }
  }

  /** Sum of a count. */
  sum(name: string): number {
    return this.#sums.get(name)?.sum ?? 0;
  }

  /** A table: name, sum, runs that had it; one group a block, by the part of the name before the dot. */
  table(runs: number): string {
    const names = [...this.#sums.keys()].sort();
    const width = Math.max(0, ...names.map((name) => name.length));
    const lines: string[] = [];
    let group = "";
    for (const name of names) {
      const next = name.slice(0, name.indexOf("."));
      if (next !== group && lines.length > 0) lines.push("");
      group = next;
      const { sum, runs: had } = this.#sums.get(name) ?? { sum: 0, runs: 0 };
      const total = Number.isInteger(sum) ? String(sum) : sum.toFixed(2);
      lines.push(`${name.padEnd(width)}  ${total.padStart(10)}  in ${String(had).padStart(6)} of ${runs} seeds`);
    }
    return lines.join("\n");
  }
}
