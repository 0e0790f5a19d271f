/**
 * `infinite-llm remove`.
 *
 * @module
 */
import type { CommandInput } from "../main.ts";
import { openHub } from "../open_hub.ts";

/** Removes a model from the cache. */
export async function remove(input: CommandInput): Promise<number> {
  const [model] = input.words;
  await openHub(input).hub.remove(model);
  console.log(`${model} is removed`);
  return 0;
}
