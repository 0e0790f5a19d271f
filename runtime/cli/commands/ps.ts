/**
 * `infinite-llm ps`.
 *
 * @module
 */
import type { CommandInput } from "../main.ts";
import { openOperator } from "../open_operator.ts";
import { placementLines } from "../report_lines.ts";

/** Lists members and sequences. */
export async function ps(input: CommandInput): Promise<number> {
  const report = await (await openOperator(input)).report();
  const { members, sequences } = report;
  console.log(input.settings.json ? JSON.stringify({ members, sequences }) : placementLines(report).join("\n"));
  return 0;
}
