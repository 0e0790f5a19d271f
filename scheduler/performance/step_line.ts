/**
 * The short form of a fit that policies see.
 *
 * @module
 */
import type { PerformanceReport } from "../protocol/messages.ts";

/** A straight line through the time of everything but attention. */
export interface StepLine {
  /** Time at batch 1, ms; NaN while unknown. */
  readonly stepMs: number;
  /** Time that each further sequence adds, ms; NaN while unknown. */
  readonly sequenceMs: number;
}

/** The line through the measured batch sizes, least squares; NaN for the slope where only one size was measured. */
export function stepLine({ batch, batchMs }: Pick<PerformanceReport, "batch" | "batchMs">): StepLine {
  if (batch.length === 0) return { stepMs: NaN, sequenceMs: NaN };
  if (batch.length === 1) return { stepMs: batch[0] === 1 ? batchMs[0] : NaN, sequenceMs: NaN };
  const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
  const batchMean = mean(batch);
  const msMean = mean(batchMs);
  const spread = mean(batch.map((size) => (size - batchMean) ** 2));
  const slope = mean(batch.map((size, i) => (size - batchMean) * (batchMs[i] - msMean))) / spread;
  const sequenceMs = Math.max(0, slope);
  return { stepMs: Math.max(0, msMean + (1 - batchMean) * sequenceMs), sequenceMs };
}
