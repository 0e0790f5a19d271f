/**
 * The result of a cluster benchmark, as its JSON file holds it.
 *
 * @module
 */
import type { Hardware } from "../hardware.ts";
import type { Verdict } from "../result.ts";
import type { Summary } from "../statistics.ts";
import type { ClusterRow, ClusterRowId } from "./rows.ts";

/** Version of the file format. */
export const CLUSTER_RESULT_VERSION = 1;

/** Figures of one kind that led to a row's own, or stand beside it. */
export interface Detail {
  /** What they are. */
  readonly what: string;
  /** Their unit. */
  readonly unit: string;
  /** The figures. */
  readonly figures: Summary;
}

/** What a row measured. */
export interface Measured {
  /** The judged figure, in the row's unit. */
  readonly figures: Summary;
  /** What led to it. */
  readonly details: readonly Detail[];
  /** How it was measured: processes, placement, lengths. */
  readonly how: string;
}

/** One measured row. */
export interface ClusterRowResult extends Measured {
  /** The row. */
  readonly id: ClusterRowId;
  /** How it did; `open` never occurs. */
  readonly verdict: Verdict;
}

/** A run of the cluster benchmark. */
export interface ClusterBenchResult {
  /** See {@linkcode CLUSTER_RESULT_VERSION}. */
  readonly version: number;
  /** Start of the run, ISO 8601. */
  readonly date: string;
  /** Commit measured, with `-dirty` where the tree differed. */
  readonly commit: string;
  /** The machine. */
  readonly hardware: Hardware;
  /** Load average over one, five and fifteen minutes, before and after. */
  readonly load: { readonly before: readonly number[]; readonly after: readonly number[] };
  /** What was asked for. */
  readonly settings: {
    readonly model: string;
    readonly digest: string;
    readonly context: number;
    readonly repeats: number;
    readonly steps: number;
    readonly batch: number;
    readonly seed: number;
    readonly quick: boolean;
  };
  /** Rows in order. */
  readonly rows: readonly ClusterRowResult[];
  /** What was left out and why, one line each. */
  readonly notes: readonly string[];
}

/** Compares the median with the row's goals. */
export function judgeCluster(row: ClusterRow, measured: Measured): ClusterRowResult {
  const { median } = measured.figures;
  const reaches = (wanted: number) => row.better === "higher" ? median >= wanted : median <= wanted;
  const verdict = !reaches(row.atLeast) ? "missed" : reaches(row.aim ?? row.atLeast) ? "aim" : "at least";
  return { id: row.id, verdict, ...measured };
}

/** Reads a result. @throws {TypeError} when the text is not one of this version. */
export function parseClusterResult(text: string): ClusterBenchResult {
  const result: ClusterBenchResult = JSON.parse(text);
  if (result?.version !== CLUSTER_RESULT_VERSION) {
    throw new TypeError(
      `Cannot read cluster benchmark: wanted version ${CLUSTER_RESULT_VERSION}, got ${result?.version}`,
    );
  }
  return result;
}
