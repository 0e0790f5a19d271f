/**
 * The rows of the cluster benchmark: what is measured, in which unit, and the goal each row is held to.
 *
 * @module
 */

/** Names of the rows, on the command line and in the JSON, in the order they are run. */
export const CLUSTER_ROW_IDS = [
  "round-trip",
  "decode-quarter",
  "batch-quarter",
  "decode-moving",
  "repair",
  "killed",
  "paused",
  "busy-holder",
  "three-small",
] as const;

/** One of {@linkcode CLUSTER_ROW_IDS}. */
export type ClusterRowId = typeof CLUSTER_ROW_IDS[number];

/** One row. */
export interface ClusterRow {
  /** Name on the command line. */
  readonly id: ClusterRowId;
  /** Name for people. */
  readonly title: string;
  /** Unit of the judged figure; `×` is a ratio of two figures of the same run. */
  readonly unit: "ms" | "×";
  /** Which way is better. */
  readonly better: "higher" | "lower";
  /** What must be reached. */
  readonly atLeast: number;
  /** What we would like to reach; absent where only a bound is stated. */
  readonly aim?: number;
}

/** Every row. */
export const CLUSTER_ROWS: readonly ClusterRow[] = [
  {
    id: "round-trip",
    title: "one remote attention round trip over 1,024 tokens, otherwise idle",
    unit: "ms",
    better: "lower",
    atLeast: 0.5,
    aim: 0.25,
  },
  {
    id: "decode-quarter",
    title: "decode with a quarter of the context on one holder, against all local",
    unit: "×",
    better: "higher",
    atLeast: 0.45,
    aim: 0.7,
  },
  {
    id: "batch-quarter",
    title: "batch of 8, each with a remote quarter, against all local",
    unit: "×",
    better: "higher",
    atLeast: 0.7,
    aim: 0.85,
  },
  {
    id: "decode-moving",
    title: "decode while 32 tokens of KV per step move away, against without",
    unit: "×",
    better: "higher",
    atLeast: 0.9,
    aim: 0.97,
  },
  {
    id: "repair",
    title: "repair of 512 lost tokens, against the prefill of 512 over the same context",
    unit: "×",
    better: "lower",
    atLeast: 1.3,
    aim: 1.1,
  },
  {
    id: "killed",
    title: "killed holder noticed",
    unit: "ms",
    better: "lower",
    atLeast: 1000,
    aim: 100,
  },
  {
    id: "paused",
    title: "paused holder noticed",
    unit: "ms",
    better: "lower",
    atLeast: 5000,
    aim: 2000,
  },
  {
    id: "busy-holder",
    title: "remote attention answered by a holder under its own full prefill load, p99",
    unit: "ms",
    better: "lower",
    atLeast: 5,
  },
  {
    id: "three-small",
    title: "short requests beside one three times too long, against local-only without it, over what CPU time is left",
    unit: "×",
    better: "higher",
    atLeast: 0.85,
    aim: 0.95,
  },
];

/** The row of that name. */
export function findClusterRow(id: ClusterRowId): ClusterRow {
  const row = CLUSTER_ROWS.find((row) => row.id === id);
  if (row === undefined) throw new RangeError(`Cannot find row ${id}: this version has no such row`);
  return row;
}
