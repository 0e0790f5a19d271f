/**
 * Turns the JSON of a cluster benchmark into text, so that no figure in the documents is typed by hand.
 *
 *     deno run --allow-read --allow-write bench/cluster/report.ts RESULT.json [--into FILE.md]
 *
 * With `--into`, the report replaces what stands between the lines `<!-- bench:begin -->` and `<!-- bench:end -->`.
 *
 * @module
 */
import { runReport } from "../report_command.ts";
import type { Summary } from "../statistics.ts";
import { formatNumber, markdownTable, type Table } from "../table.ts";
import { type ClusterBenchResult, parseClusterResult } from "./result.ts";
import { type ClusterRow, findClusterRow } from "./rows.ts";

/** Three significant digits, also below 1. */
function formatFigure(value: number): string {
  return Math.abs(value) < 1 ? value.toFixed(3) : formatNumber(value);
}

function formatSummary({ median, min, max, samples }: Summary): string {
  if (samples.length === 1) return formatFigure(median);
  return `${formatFigure(median)} (${formatFigure(min)}–${formatFigure(max)})`;
}

function formatGoal({ better, atLeast, aim, unit }: ClusterRow): string {
  const sign = better === "higher" ? "≥" : "≤";
  const state = (value: number) => `${sign} ${value.toLocaleString("en-US")} ${unit}`;
  return aim === undefined ? state(atLeast) : `${state(atLeast)}; aim ${state(aim)}`;
}

/** The judged figures, median (min–max). */
export function clusterTable({ rows }: Pick<ClusterBenchResult, "rows">): Table {
  return {
    header: ["row", "unit", "measured", "goal", "result"],
    rows: rows.map(({ id, figures, verdict }) => {
      const row = findClusterRow(id);
      return [row.title, row.unit, formatSummary(figures), formatGoal(row), verdict];
    }),
  };
}

/** What led to the judged figures. */
export function clusterDetails({ rows }: Pick<ClusterBenchResult, "rows">): Table {
  return {
    header: ["row", "figure", "unit", "measured"],
    rows: rows.flatMap(({ id, details }) =>
      details.map(({ what, unit, figures }) => [id, what, unit, formatSummary(figures)])
    ),
  };
}

/** Markdown of a result. */
export function renderClusterReport(result: ClusterBenchResult): string {
  const { hardware, settings, load, rows, notes } = result;
  const list = (items: readonly string[]) => items.map((item) => `- ${item}`).join("\n");
  const machine = [
    `${hardware.cpu}, ${hardware.cores} cores (${hardware.features.join(", ") || "features unknown"})`,
    `${formatNumber(hardware.memoryBytes / 2 ** 30)} GiB`,
    hardware.os,
    hardware.runtime,
  ].join("; ");
  return [
    `${result.date.slice(0, 10)}, commit ${result.commit}. ${machine}. Load average ${load.before.join(" ")} before, ` +
    `${load.after.join(" ")} after.`,
    `${settings.model}, every member one thread, f16 KV, ${
      settings.context.toLocaleString("en-US")
    } tokens of context, ${settings.repeats} samples a row, seed ${settings.seed}${
      settings.quick ? ", quick: the figures mean nothing" : ""
    }. Figures are median (min–max).`,
    markdownTable(clusterTable(result)),
    markdownTable(clusterDetails(result)),
    list(rows.map(({ id, how }) => `${id}: ${how}`)),
    ...(notes.length === 0 ? [] : ["Left out:", list(notes)]),
  ].join("\n\n");
}

if (import.meta.main) {
  Deno.exit(runReport(Deno.args, {
    program: "bench/cluster/report.ts",
    mark: "bench",
    parse: parseClusterResult,
    render: renderClusterReport,
  }));
}
