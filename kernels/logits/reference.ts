/**
 * The slow, obvious answer, in f64.
 *
 * @module
 */
import { CANDIDATES, checkLogits, type LogitSummary } from "./spec.ts";

/** Summary of a row: see the spec. @throws {RangeError} when it is empty. */
export function logitsReference(row: Float32Array): LogitSummary {
  checkLogits(row);
  const max = row.reduce((most, x) => Math.max(most, x), -Infinity);
  const sum = row.reduce((total, x) => total + Math.exp(x - max), 0);
  const rank = (id: number): number => Number.isNaN(row[id]) ? -Infinity : row[id];
  const ids = Int32Array.from(row, (_, id) => id)
    .sort((a, b) => rank(a) === rank(b) ? a - b : rank(b) - rank(a))
    .slice(0, CANDIDATES);
  const logits = Float32Array.from(ids, (id) => row[id]);
  return { logSumExp: max === -Infinity ? -Infinity : Math.fround(max + Math.log(sum)), ids, logits };
}
