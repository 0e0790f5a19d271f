/**
 * The result of a benchmark, as its JSON file holds it.
 *
 * @module
 */
import type { Hardware } from "./hardware.ts";
import type { GoalBasis, RowId } from "./rows.ts";
import type { Summary } from "./statistics.ts";

/** Version of the file format. */
export const RESULT_VERSION = 1;

/**
 * How a row did. `aim`: every goal is measured and reaches its aim. `at least`: every goal is measured or has an aim
 * only, and reaches what it must. `missed`: a goal does not reach what it must. `open`: nothing is missed, but something
 * that must be reached was not measured.
 */
export type Verdict = "aim" | "at least" | "missed" | "open";

/** What ours is, divided by one basis of its goals (in the row's unit for the basis `none`). */
export type Ratios = Readonly<Partial<Record<GoalBasis, number>>>;

/** One measured row. */
export interface RowResult {
  /** The row. */
  readonly id: RowId;
  /** Our samples. */
  readonly ours: Summary;
  /** Samples of the others, by name. */
  readonly peers: Readonly<Record<string, Summary>>;
  /** Name of the fastest native peer, if there was one. */
  readonly native?: string;
  /** Rate that the ceilings measured beside the row allow, tokens a second. */
  readonly ceiling?: number;
  /** Ours against each measured basis. */
  readonly ratios: Ratios;
  /** How it did. */
  readonly verdict: Verdict;
}

/** A benchmark run. */
export interface BenchResult {
  /** See {@linkcode RESULT_VERSION}. */
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
    readonly threads: number;
    readonly pin: boolean;
    readonly repeats: number;
    readonly warmMs: number;
    readonly seed: number;
    readonly decodedTokens: number;
  };
  /** Version and settings of everybody who took part, by name. */
  readonly contestants: Readonly<Record<string, string>>;
  /** Ceilings over the whole run: bytes or MACs a second, by name. */
  readonly ceilings: Readonly<Record<string, Summary>>;
  /** Rows in order. */
  readonly rows: readonly RowResult[];
  /** What was left out and why, one line each. */
  readonly notes: readonly string[];
}

/** Reads a result. @throws {TypeError} when the text is not one of this version. */
export function parseResult(text: string): BenchResult {
  const result: BenchResult = JSON.parse(text);
  if (result?.version !== RESULT_VERSION) {
    throw new TypeError(`Cannot read benchmark result: wanted version ${RESULT_VERSION}, got ${result?.version}`);
  }
  return result;
}
