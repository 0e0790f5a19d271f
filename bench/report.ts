/**
 * Turns the JSON of a benchmark into Markdown, so that no figure in the documents is typed by hand.
 *
 *     deno run --allow-read --allow-write bench/report.ts RESULT.json [--short] [--into FILE.md]
 *
 * `--short` gives one small table. With `--into`, the report replaces what stands between the lines `<!-- bench:begin -->` and `<!-- bench:end -->`.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { type BenchResult, parseResult } from "./result.ts";
import { buildCeilings, buildShortTable, buildTable, formatNumber, markdownTable } from "./table.ts";

/** Name of the marks of this benchmark's report. */
const MARK = "bench";

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

/** Where in a document a report goes. */
export interface InsertOptions {
  /** Name of the marks, of which several reports of one document have different ones. @default {"bench"} */
  readonly mark?: string;
}

/**
 * `document` with `report` between its marks, the lines `<!-- MARK:begin -->` and `<!-- MARK:end -->`.
 *
 * @throws {RangeError} when the document does not hold each mark once, in order.
 */
export function insertReport(document: string, report: string, { mark = MARK }: InsertOptions = {}): string {
  const [begin, end] = ["begin", "end"].map((edge) => `<!-- ${mark}:${edge} -->`);
  const [before, rest, ...moreBegins] = document.split(begin);
  const [, after, ...moreEnds] = (rest ?? "").split(end);
  if (after === undefined || moreBegins.length + moreEnds.length > 0) {
    throw new RangeError(`Cannot insert the report: wanted ${begin} and ${end} once each, in this order`);
  }
  return `${before}${begin}\n\n${report}\n\n${end}${after}`;
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    args: Deno.args,
    options: { into: { type: "string" }, short: { type: "boolean" } },
    allowPositionals: true,
  });
  if (positionals.length !== 1) {
    console.error("Usage: bench/report.ts RESULT.json [--short] [--into FILE.md]");
    Deno.exit(2);
  }
  const result = parseResult(Deno.readTextFileSync(positionals[0]));
  const report = values.short ? renderShortReport(result) : renderReport(result);
  if (values.into === undefined) console.log(report);
  else Deno.writeTextFileSync(values.into, insertReport(Deno.readTextFileSync(values.into), report));
}
