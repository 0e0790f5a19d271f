/**
 * Sizes that steps are rounded up to: a captured graph serves every decode step of its bucket, and a product's algorithm
 * every row count of its size.
 *
 * @module
 */
import type { StepSequence } from "./device.ts";
import type { PlanCapacity } from "./cuda_plan.ts";

/** Sequences of the largest captured step. */
export const LARGEST_BUCKET = 256;

/** Sequences of the captured steps. */
export const DECODE_BUCKETS = [1, 2, 4, 8, 16, 32, 64, 128, LARGEST_BUCKET] as const;

/** Rows beyond the largest bucket are rounded up to a multiple of this. */
const PRODUCT_ROWS = 256;

/** Table entries a captured step can take: some for every sequence, and a few newcomers. */
function patchesOf(sequences: number): number {
  return 64 + 4 * sequences;
}

/** Whether every sequence of a batch has one token and all its segments, so that a captured step can run it. */
export function isDecode(batch: readonly StepSequence[]): boolean {
  return batch.every(({ tokens, absent = [] }) => tokens.length === 1 && absent.length === 0);
}

/** The smallest bucket of at least `sequences` sequences that is not above `most`; undefined when there is none. */
export function decodeBucket(sequences: number, most: number): number | undefined {
  return DECODE_BUCKETS.find((bucket) => bucket >= sequences && bucket <= most);
}

/** Room of the plan of a captured step. */
export function bucketCapacity(bucket: number): PlanCapacity {
  return { tokens: bucket, sequences: bucket, rows: bucket, patches: patchesOf(bucket) };
}

/** Rows that a product over `rows` rows computes: rows beyond are garbage that nobody reads. */
export function productRows(rows: number): number {
  return DECODE_BUCKETS.find((bucket) => bucket >= rows) ?? Math.ceil(rows / PRODUCT_ROWS) * PRODUCT_ROWS;
}
