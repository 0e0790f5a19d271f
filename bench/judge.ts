/**
 * Compares a row's figures with its goals.
 *
 * @module
 */
import { BARE_SERVER } from "./contestant.ts";
import type { RowResult, Verdict } from "./result.ts";
import type { Goal, GoalBasis, Row } from "./rows.ts";
import type { Summary } from "./statistics.ts";

/** Peers that run native code. */
const NATIVE: readonly string[] = ["node-llama-cpp", "llama-bench", "llama-server"];

/** What was measured of a row. */
export interface Measured {
  /** Our samples. */
  readonly ours: Summary;
  /** Samples of the others, by name. */
  readonly peers: Readonly<Record<string, Summary>>;
  /** Rate that the ceilings allow, in the row's unit. */
  readonly ceiling?: number;
}

/** Compares medians. */
export function judge(row: Row, { ours, peers, ceiling }: Measured): RowResult {
  const native = bestNative(row, peers);
  const bases: Record<GoalBasis, number | undefined> = {
    native: native === undefined ? undefined : peers[native].median,
    wllama: peers.wllama?.median,
    bare: peers[BARE_SERVER]?.median,
    ceiling,
    none: 1,
  };
  const ratios: Partial<Record<GoalBasis, number>> = {};
  for (const { basis } of row.goals) {
    const value = bases[basis];
    if (value !== undefined) ratios[basis] = ours.median / value;
  }
  return { id: row.id, ours, peers, native, ceiling, ratios, verdict: verdict(row, ratios) };
}

function bestNative(row: Row, peers: Measured["peers"]): string | undefined {
  const names = NATIVE.filter((name) => peers[name] !== undefined);
  const sign = row.better === "higher" ? -1 : 1;
  return names.sort((a, b) => sign * (peers[a].median - peers[b].median))[0];
}

function verdict(row: Row, ratios: RowResult["ratios"]): Verdict {
  const reaches = ({ basis }: Goal, wanted: number): boolean | undefined => {
    const ratio = ratios[basis];
    return ratio === undefined ? undefined : row.better === "higher" ? ratio >= wanted : ratio <= wanted;
  };
  const musts = row.goals.map((goal) => goal.atLeast === undefined ? true : reaches(goal, goal.atLeast));
  if (musts.includes(false)) return "missed";
  if (musts.includes(undefined)) return "open";
  return row.goals.every((goal) => reaches(goal, goal.aim) === true) ? "aim" : "at least";
}
