/**
 * The slow, obvious merge, in f64: all parts at once, without a tree.
 *
 * @module
 */
import { type AttentionPartial, checkMerge } from "./spec.ts";

/**
 * Merges `parts`: see the formula of the spec.
 *
 * @throws {RangeError} when an axis does not match.
 */
export function mergePartialsReference(parts: readonly AttentionPartial[]): AttentionPartial {
  const { rows, width } = checkMerge(parts);
  const o = new Float32Array(rows * width);
  const lse = new Float32Array(rows);
  for (let row = 0; row < rows; row++) {
    const full = parts.filter((part) => part.lse[row] !== -Infinity);
    if (full.length === 1) {
      lse[row] = full[0].lse[row];
      o.set(full[0].o.subarray(row * width, (row + 1) * width), row * width);
      continue;
    }
    const max = Math.max(...full.map((part) => part.lse[row]));
    const weights = full.map((part) => Math.exp(part.lse[row] - max));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    lse[row] = full.length === 0 ? -Infinity : max + Math.log(sum);
    for (let d = 0; d < width; d++) {
      const total = full.reduce((part, { o }, index) => part + weights[index] * o[row * width + d], 0);
      o[row * width + d] = full.length === 0 ? 0 : total / sum;
    }
  }
  return { o, lse };
}
