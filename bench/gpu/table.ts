/**
 * The rows of a GPU result as a table of text cells.
 *
 * @module
 */
import { formatNumber, type Table } from "../table.ts";
import { isHeadline } from "./headlines.ts";
import type { GpuBenchResult, JudgedRow } from "./result.ts";
import type { Comparison } from "./row.ts";

/** Three significant digits, also below 1. */
function formatFigure(value: number): string {
  return Math.abs(value) < 1 ? value.toPrecision(3) : formatNumber(value);
}

function formatComparison({ basis, ratio }: Comparison): string {
  return `${ratio === undefined ? "–" : ratio.toFixed(2)} of ${basis}`;
}

function formatGoals(comparisons: readonly Comparison[]): string {
  const asked = comparisons.filter(({ atLeast, aim }) => atLeast !== undefined || aim !== undefined);
  return asked.map(({ atLeast, aim }) =>
    [
      ...atLeast === undefined ? [] : [`≥ ${atLeast.toFixed(2)}`],
      ...aim === undefined ? [] : [`aim ${aim.toFixed(2)}`],
    ].join(", ")
  ).join("; ");
}

function formatPeers(peers: JudgedRow["peers"]): string {
  return Object.entries(peers).map(([name, value]) => `${formatFigure(value)} (${name})`).join(", ");
}

/** Every row with its comparisons, goals and verdict. */
export function gpuTable({ rows }: Pick<GpuBenchResult, "rows">): Table {
  return {
    header: ["row", "unit", "ours", "beside", "stands at", "goal", "result"],
    rows: rows.map(({ title, unit, value, peers, comparisons, verdict }) => [
      title,
      unit,
      formatFigure(value),
      formatPeers(peers) || "–",
      comparisons.map(formatComparison).join("; ") || "–",
      formatGoals(comparisons) || "–",
      verdict === "none" ? "–" : verdict,
    ]),
  };
}

/** Rows that stand for the others, without goals and verdicts. */
export function gpuShortTable({ rows }: Pick<GpuBenchResult, "rows">): Table {
  return {
    header: ["row", "unit", "ours", "beside", "stands at"],
    rows: rows.filter(({ title }) => isHeadline(title)).map(({ title, unit, value, peers, comparisons }) => [
      title,
      unit,
      formatFigure(value),
      formatPeers(peers) || "–",
      comparisons.map(formatComparison).join("; ") || "–",
    ]),
  };
}

/** Ceilings in units people read. */
export function gpuCeilings({ ceilings }: Pick<GpuBenchResult, "ceilings">): Table {
  return {
    header: ["ceiling", "10¹² a second"],
    rows: Object.entries(ceilings).map(([name, value]) => [name, formatNumber(value / 1e12)]),
  };
}
