/**
 * `infinite-llm list`.
 *
 * @module
 */
import { formatBytes } from "../../hub/format_bytes.ts";
import { aligned } from "../aligned.ts";
import type { CommandInput } from "../main.ts";
import { openHub } from "../open_hub.ts";

/** Lists the models in the cache. */
export async function list(input: CommandInput): Promise<number> {
  const { hub, cacheDirectory } = openHub(input);
  const entries = await hub.list();
  if (entries.length === 0) {
    console.error(`No models in ${cacheDirectory}`);
    return 0;
  }
  const rows = entries.map(({ model, files, fetchedAt, source }) => [
    model,
    formatBytes(files.reduce((sum, { bytes }) => sum + bytes, 0)),
    fetchedAt.slice(0, 10),
    source,
  ]);
  for (const line of aligned([["MODEL", "SIZE", "FETCHED", "SOURCE"], ...rows])) console.log(line);
  return 0;
}
