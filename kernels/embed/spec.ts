/**
 * embed - rows of the token embedding: x[t, n] = table[id[t], n].
 *
 * id [T] i32, table [V, N] bf16 -> x [T, N] f32, exact. An id outside of 0 to V - 1 gives a row of NaN, so that it shows.
 *
 * Needs: N and V positive.
 *
 * Roofline: bytes = 6 * T * N.
 *
 * Schedule: embed.cu. On CPU cores the table is quantised and rows are decoded with the weights (`linear`).
 *
 * Test: embed_cuda_test.ts.
 *
 * @module
 */
import { Axes } from "../axes.ts";

/** Ids and the table they name rows of. */
export interface EmbedInput {
  /** Ids, [T]. */
  readonly ids: Int32Array;
  /** Table, [V, N], values that a bf16 holds. */
  readonly table: Float32Array;
  /** N, width of a row. */
  readonly width: number;
}

/** Checks the arguments; returns V. @throws {RangeError} when an axis does not match. */
export function checkEmbed({ table, width }: EmbedInput): { readonly vocab: number } {
  const axes = new Axes("embed", { N: width });
  axes.match("table", table.length, ["V", "N"]);
  return { vocab: axes.size("V") };
}

/** Seeds of test data. */
export const SEEDS = { test: 81 } as const;
