/**
 * Runs one row: everybody in turn, as many turns as asked for, so that a noisy machine disturbs all alike.
 *
 * @module
 */
import type { Contestant } from "./contestant.ts";
import type { CeilingId, Row } from "./rows.ts";

/** How to run a row. */
export interface TurnOptions {
  /** Who takes part. */
  readonly contestants: readonly Contestant[];
  /** Measures a ceiling; asked once a turn. */
  readonly measureCeiling: (ceiling: CeilingId) => Promise<number>;
  /** Samples of each. */
  readonly repeats: number;
  /** Told about each sample. */
  readonly onSample: (name: string, value: number) => void;
}

/** Samples of a row. */
export interface TurnSamples {
  /** By contestant. One that failed has none. */
  readonly contestants: ReadonlyMap<string, readonly number[]>;
  /** By ceiling. */
  readonly ceilings: ReadonlyMap<CeilingId, readonly number[]>;
  /** Why a contestant failed, by its name. */
  readonly failures: ReadonlyMap<string, string>;
}

/** Warms everybody up, then takes turns; each turn begins with the next contestant. */
export async function takeTurns(row: Row, options: TurnOptions): Promise<TurnSamples> {
  const contestants = new Map<string, number[]>();
  const ceilings = new Map<CeilingId, number[]>(row.ceilings.map((id) => [id, []]));
  const failures = new Map<string, string>();
  let active = options.contestants.filter(({ rows }) => rows.includes(row.id));
  const attempt = async (contestant: Contestant, action: () => Promise<void>) => {
    try {
      await action();
    } catch (error) {
      failures.set(contestant.name, error instanceof Error ? error.message : String(error));
      contestants.delete(contestant.name);
      active = active.filter((other) => other !== contestant);
    }
  };
  for (const contestant of active) await attempt(contestant, () => contestant.warm(row.id));
  for (let turn = 0; turn < options.repeats; turn++) {
    for (const [id, samples] of ceilings) samples.push(await options.measureCeiling(id));
    const first = turn % Math.max(1, active.length);
    for (const contestant of [...active.slice(first), ...active.slice(0, first)]) {
      if (turn >= (contestant.maxSamples ?? Infinity)) continue;
      await attempt(contestant, async () => {
        const value = await contestant.sample(row.id, turn);
        contestants.set(contestant.name, [...contestants.get(contestant.name) ?? [], value]);
        options.onSample(contestant.name, value);
      });
    }
  }
  return { contestants, ceilings, failures };
}
