/**
 * `infinite-llm pull`.
 *
 * @module
 */
import { formatBytes } from "../../hub/format_bytes.ts";
import { DEFAULT_MODEL } from "../../hub/known_models.ts";
import type { CommandInput } from "../main.ts";
import { openHub } from "../open_hub.ts";

/** Fetches a model into the cache. */
export async function pull(input: CommandInput): Promise<number> {
  const { hub } = openHub(input);
  const { model, files, source } = await hub.pull(input.words[0] ?? DEFAULT_MODEL);
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  console.log(`${model} is in the cache: ${formatBytes(bytes)} from ${source}, checked`);
  return 0;
}
