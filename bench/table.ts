/**
 * The rows of a result as a table of text cells, for the terminal and for Markdown.
 *
 * @module
 */
import { BARE_SERVER } from "./contestant.ts";
import type { BenchResult, RowResult } from "./result.ts";
import { type Goal, type GoalBasis, type Row, type RowId, ROWS } from "./rows.ts";
import type { Summary } from "./statistics.ts";

/** Header cells, then the cells of each row. */
export interface Table {
  /** Names of the columns. */
  readonly header: readonly string[];
  /** Rows, each as long as the header. */
  readonly rows: readonly (readonly string[])[];
}

const NONE = "–";
const BASIS_NAMES: Readonly<Record<GoalBasis, string>> = {
  native: "native",
  wllama: "wllama",
  bare: "bare",
  ceiling: "of the ceiling",
  none: "",
};

/** Three significant digits, no fewer than all whole ones, thousands separated. */
export function formatNumber(value: number): string {
  const whole = Math.max(1, Math.floor(Math.log10(Math.max(1, Math.abs(value)))) + 1);
  const digits = Math.max(0, 3 - whole);
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function formatSummary(summary: Summary | undefined): string {
  if (summary === undefined) return NONE;
  const { median, min, max } = summary;
  return `${formatNumber(median)} (${formatNumber(min)}–${formatNumber(max)})`;
}

function formatRatio(value: number | undefined, suffix = ""): string {
  return value === undefined ? NONE : value.toFixed(2) + suffix;
}

function formatGoals(row: Row): string {
  const sign = row.better === "higher" ? "≥" : "≤";
  const state = ({ basis }: Goal, value: number) =>
    basis === "none"
      ? `${sign} ${formatNumber(value)} ${row.unit}`
      : `${sign} ${value}${basis === "ceiling" ? "" : "×"} ${BASIS_NAMES[basis]}`;
  const musts = row.goals.flatMap((goal) => goal.atLeast === undefined ? [] : [state(goal, goal.atLeast)]);
  return `${musts.join(", ")}; aim ${row.goals.map((goal) => state(goal, goal.aim)).join(", ")}`;
}

/** Names of everybody else who has a figure, in order of appearance. */
function peerNames(rows: readonly RowResult[]): string[] {
  return [...new Set(rows.flatMap(({ peers }) => Object.keys(peers)))];
}

function findRow(id: RowId): Row {
  const row = ROWS.find((row) => row.id === id);
  if (row === undefined) throw new RangeError(`Cannot print row ${id}: this version has no such row`);
  return row;
}

/** Figures are median (min–max). */
export function buildTable({ rows }: Pick<BenchResult, "rows">): Table {
  const names = peerNames(rows);
  return {
    header: ["row", "unit", "ours", ...names, "÷ native", "÷ wllama", "of the ceiling", "goal", "result"],
    rows: rows.map((result) => {
      const row = findRow(result.id);
      const { ratios } = result;
      const base = ratios.native ?? ratios.bare;
      return [
        row.title,
        row.unit,
        formatSummary(result.ours),
        ...names.map((name) => formatSummary(result.peers[name])),
        formatRatio(base, ratios.native === undefined && ratios.bare !== undefined ? " (bare)" : ""),
        formatRatio(ratios.wllama),
        formatRatio(ratios.ceiling),
        formatGoals(row),
        result.verdict,
      ];
    }),
  };
}

/** Medians alone, with the fastest native peer (or the bare server) of each row in place of all. */
export function buildShortTable({ rows }: Pick<BenchResult, "rows">): Table {
  const median = (summary: Summary | undefined) => summary === undefined ? NONE : formatNumber(summary.median);
  return {
    header: ["row", "unit", "ours", "beside", "wllama", "÷ beside", "÷ wllama", "of the ceiling"],
    rows: rows.map(({ id, ours, peers, native, ratios }) => {
      const row = findRow(id);
      const base = native ?? (ratios.bare === undefined ? undefined : BARE_SERVER);
      return [
        row.title,
        row.unit,
        median(ours),
        base === undefined ? NONE : `${median(peers[base])} (${base})`,
        median(peers.wllama),
        formatRatio(ratios.native ?? ratios.bare),
        formatRatio(ratios.wllama),
        formatRatio(ratios.ceiling),
      ];
    }),
  };
}

/** Ceilings in units people read. */
export function buildCeilings({ ceilings }: Pick<BenchResult, "ceilings">): Table {
  return {
    header: ["ceiling", "unit", "median (min–max)"],
    rows: Object.entries(ceilings).map(([name, { min, median, max }]) => [
      name,
      name.startsWith("read") ? "GB/s" : "GMAC/s",
      `${formatNumber(median / 1e9)} (${formatNumber(min / 1e9)}–${formatNumber(max / 1e9)})`,
    ]),
  };
}

function columnWidths({ header, rows }: Table): number[] {
  return header.map((_, i) => Math.max(...[header, ...rows].map((cells) => [...cells[i]].length)));
}

/** Pads a cell to `width` characters. */
function pad(cell: string, width: number): string {
  return cell + " ".repeat(width - [...cell].length);
}

/** Lines for a terminal. */
export function textTable(table: Table): string {
  const widths = columnWidths(table);
  const line = (cells: readonly string[]) => cells.map((cell, i) => pad(cell, widths[i])).join("  ").trimEnd();
  return [table.header, ...table.rows].map(line).join("\n");
}

/** A Markdown table, formatted as `deno fmt` leaves it. */
export function markdownTable(table: Table): string {
  const widths = columnWidths(table);
  const line = (cells: readonly string[]) => `| ${cells.map((cell, i) => pad(cell, widths[i])).join(" | ")} |`;
  const rule = `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`;
  return [line(table.header), rule, ...table.rows.map(line)].join("\n");
}
