/**
 * Rows of logits for tests and benches.
 *
 * @module
 */
import { TOP_CANDIDATES } from "../device/device.ts";
import { uniform } from "./random.ts";
import type { LogitRow } from "./row.ts";

/** The row a device reports for the given logits. */
export function rowOf(logits: ArrayLike<number>): LogitRow {
  const row = Float32Array.from(logits);
  const ids = Int32Array.from(row, (_, id) => id).sort((a, b) => row[b] - row[a] || a - b).slice(0, TOP_CANDIDATES);
  const largest = row[ids[0]];
  const sum = row.reduce((total, logit) => total + Math.exp(logit - largest), 0);
  return {
    vocab: row.length,
    logits: row,
    logSumExp: Math.fround(largest + Math.log(sum)),
    top: { ids, logits: Float32Array.from(ids, (id) => row[id]) },
  };
}

/** Normal logits of standard deviation `spread`; the one of a random token is `peak`, where given. */
export function testRow(
  { vocab, seed, spread, peak }: {
    readonly vocab: number;
    readonly seed: number;
    readonly spread: number;
    readonly peak?: number;
  },
): LogitRow {
  const logits = Float32Array.from({ length: vocab }, (_, id) => {
    const radius = Math.sqrt(-2 * Math.log(1 - uniform(seed, 2 * id)));
    return spread * radius * Math.cos(2 * Math.PI * uniform(seed, 2 * id + 1));
  });
  if (peak !== undefined) logits[Math.floor(uniform(seed, 2 * vocab) * vocab)] = peak;
  return rowOf(logits);
}
