/**
 * What every row of the cluster benchmark is given.
 *
 * @module
 */
import type { OpenModel } from "../../runtime/model/model.ts";
import type { ClusterBenchOptions } from "./options.ts";

/** What a row is run with. */
export interface BenchContext {
  /** The model, open; stays the caller's. */
  readonly model: OpenModel;
  /** Its file. */
  readonly modelPath: string;
  /** What was asked for. */
  readonly options: ClusterBenchOptions;
  /** Takes a line for people. */
  readonly log: (line: string) => void;
}

/** `count` token ids that nothing has a prefix of, drawn from `seed` by a linear congruential generator. */
export function drawPrompt(count: number, seed: number): Int32Array {
  let state = (seed * 2_654_435_761) >>> 0;
  return Int32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return 1000 + (state >>> 8) % 20_000;
  });
}
