/**
 * Quantiles of many samples.
 *
 * @module
 */

/**
 * The sample below which a share of the samples lies: the nearest rank.
 *
 * @throws {RangeError} when there are no samples.
 */
export function quantile(samples: readonly number[], share: number): number {
  if (samples.length === 0) throw new RangeError("Cannot take a quantile: wanted at least one sample, got none");
  const sorted = Float64Array.from(samples).sort();
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))];
}
