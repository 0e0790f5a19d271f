/**
 * `infinite-llm plugin check`.
 *
 * @module
 */
import { checkPlugin, reportLines } from "../../../plugins/check.ts";
import type { CommandInput } from "../main.ts";

/** Checks a scheduler policy. */
export async function pluginCheck({ settings, words }: CommandInput): Promise<number> {
  const config = Object.keys(settings.schedulerOpt).length === 0 ? undefined : settings.schedulerOpt;
  const report = await checkPlugin(words[0], { config });
  for (const line of reportLines(report)) console.log(line);
  return report.ok ? 0 : 1;
}
