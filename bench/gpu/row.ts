/**
 * One figure of the GPU benchmark, what it is compared with, and how it did.
 *
 * @module
 */

/** Groups of rows that are run together, in the order they are run. */
export const PART_IDS = ["start", "decode", "prefill", "products", "steps", "serving"] as const;

/** One of {@linkcode PART_IDS}. */
export type PartId = typeof PART_IDS[number];

/** How ours stands beside something: 1 is as good, more is better. */
export interface Comparison {
  /** What it stands beside. */
  readonly basis: string;
  /** How it stands; undefined when the other was not measured. */
  readonly ratio?: number;
  /** What must be reached; absent where only an aim or nothing is stated. */
  readonly atLeast?: number;
  /** What is aimed at. */
  readonly aim?: number;
}

/** One figure. */
export interface GpuRow {
  /** Its part. */
  readonly part: PartId;
  /** Name for people. */
  readonly title: string;
  /** Unit of `value` and of `peers`. */
  readonly unit: string;
  /** Our figure, a median. */
  readonly value: number;
  /** Figures of others in the same run, by name. */
  readonly peers: Readonly<Record<string, number>>;
  /** What it is compared with. */
  readonly comparisons: readonly Comparison[];
}

/**
 * How a row did. `aim`: every aim is measured and reached. `at least`: everything that must be reached is. `missed`:
 * something that must be reached is not. `open`: nothing is missed, but something that must be reached was not measured.
 * `none`: nothing is asked of it.
 */
export type GpuVerdict = "aim" | "at least" | "missed" | "open" | "none";

/** Judges a row by its comparisons. */
export function judgeRow({ comparisons }: Pick<GpuRow, "comparisons">): GpuVerdict {
  const asked = comparisons.filter(({ atLeast, aim }) => atLeast !== undefined || aim !== undefined);
  if (asked.length === 0) return "none";
  const reached = ({ ratio }: Comparison, wanted: number | undefined) =>
    wanted === undefined ? true : ratio === undefined ? undefined : ratio >= wanted;
  const musts = asked.map((comparison) => reached(comparison, comparison.atLeast));
  if (musts.includes(false)) return "missed";
  if (musts.includes(undefined)) return "open";
  return asked.every((comparison) => reached(comparison, comparison.aim) === true) ? "aim" : "at least";
}
