/**
 * The command line of a report: a JSON of results in, Markdown out, to the terminal or between the marks of a document.
 *
 * @module
 */
import { parseArgs } from "node:util";

/** A kind of report. */
export interface ReportCommand<Result> {
  /** Its program, for the line that says how to use it. */
  readonly program: string;
  /** Name of its marks: several reports of one document have different ones. */
  readonly mark: string;
  /** Reads the JSON. @throws {Error} when it is none of this kind. */
  readonly parse: (json: string) => Result;
  /** Makes the Markdown. */
  readonly render: (result: Result) => string;
  /** Makes one small table, where there is such a thing. */
  readonly renderShort?: (result: Result) => string;
}

/**
 * Runs `RESULT.json [--short] [--into FILE.md]`. Gives the exit status: 2 when the arguments are wrong.
 *
 * @throws {RangeError} as {@linkcode insertReport}.
 */
export function runReport<Result>(args: string[], command: ReportCommand<Result>): number {
  const { program, parse, render, renderShort } = command;
  const { values: { into, short }, positionals } = parseArgs({
    args,
    options: { into: { type: "string" }, short: { type: "boolean", default: false } },
    allowPositionals: true,
  });
  const rendered = short ? renderShort : render;
  if (positionals.length !== 1 || rendered === undefined) {
    console.error(`Usage: ${program} RESULT.json ${renderShort === undefined ? "" : "[--short] "}[--into FILE.md]`);
    return 2;
  }
  const report = rendered(parse(Deno.readTextFileSync(positionals[0])));
  if (into === undefined) console.log(report);
  else Deno.writeTextFileSync(into, insertReport(Deno.readTextFileSync(into), report, command));
  return 0;
}

/**
 * `document` with `report` between its marks, the lines `<!-- MARK:begin -->` and `<!-- MARK:end -->`.
 *
 * @throws {RangeError} when the document does not hold each mark once, in order.
 */
export function insertReport(document: string, report: string, { mark }: { readonly mark: string }): string {
  const [begin, end] = ["begin", "end"].map((edge) => `<!-- ${mark}:${edge} -->`);
  const [before, rest, ...moreBegins] = document.split(begin);
  const [, after, ...moreEnds] = (rest ?? "").split(end);
  if (after === undefined || moreBegins.length + moreEnds.length > 0) {
    throw new RangeError(`Cannot insert the report: wanted ${begin} and ${end} once each, in this order`);
  }
  return `${before}${begin}\n\n${report}\n\n${end}${after}`;
}
