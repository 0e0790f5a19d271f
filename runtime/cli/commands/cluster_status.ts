/**
 * `infinite-llm cluster status`.
 *
 * @module
 */
import type { CommandInput } from "../main.ts";
import { openOperator } from "../open_operator.ts";
import { statusLines } from "../report_lines.ts";

/** Shows everything about a cluster. */
export async function clusterStatus(input: CommandInput): Promise<number> {
  const report = await (await openOperator(input)).report();
  console.log(input.settings.json ? JSON.stringify(report) : statusLines(report).join("\n"));
  return 0;
}
