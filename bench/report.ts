/**
 * Turns the JSON of a benchmark into Markdown, so that no figure in the documents is typed by hand.
 *
 *     deno run --allow-read --allow-write bench/report.ts RESULT.json [--short] [--into FILE.md]
 *
 * `--short` gives one small table. With `--into`, the report replaces what stands between the lines `<!-- bench:begin -->` and `<!-- bench:end -->`.
 *
 * @module
 */
import { runReport } from "./report_command.ts";
import { type BenchResult, parseResult } from "./result.ts";
import { buildCeilings, buildShortTable, buildTable, formatNumber, markdownTable } from "./table.ts";

/** Markdown of a result: the machine, the rows, the ceilings, who took part, what was left out. */
export function renderReport(result: BenchResult): string {
  const { hardware, settings, load, contestants, notes } = result;
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
    `${settings.model}, ${settings.threads} threads, ${
      settings.pin ? "pinned" : "not pinned"
    }, ${settings.repeats} turns, seed ${settings.seed}. Figures are ` +
    "median (min–max); ratios are of medians.",
    markdownTable(buildTable(result)),
    ...(Object.keys(result.ceilings).length === 0 ? [] : [markdownTable(buildCeilings(result))]),
    list(Object.entries(contestants).map(([name, version]) => `${name}: ${version}`)),
    ...(notes.length === 0 ? [] : ["Left out:", list(notes)]),
  ].join("\n\n");
}

/** One small table of medians, and what it was measured on. */
export function renderShortReport(result: BenchResult): string {
  const { hardware, settings, date } = result;
  return [
    `${settings.model}, ${settings.threads} threads of ${hardware.cpu} (${hardware.cores} cores), ${
      date.slice(0, 10)
    }.`,
    markdownTable(buildShortTable(result)),
  ].join("\n\n");
}

if (import.meta.main) {
  Deno.exit(runReport(Deno.args, {
    program: "bench/report.ts",
    mark: "bench",
    parse: parseResult,
    render: renderReport,
    renderShort: renderShortReport,
  }));
}
