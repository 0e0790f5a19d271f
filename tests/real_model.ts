/**
 * The default model for tests that need a real one.
 *
 * @module
 */
import { findModel } from "../runtime/hub/find_model.ts";
import { ProgressBar } from "../runtime/hub/progress.ts";

/**
 * Path of the default model's file: from the cache, or else fetched into it as `infinite-llm pull` does.
 *
 * @throws {Error} naming every source that did not give it.
 */
export async function realModelPath(): Promise<string> {
  const reporter = new ProgressBar({ terminal: false, write: (text) => console.error(text.trimEnd()) });
  return await findModel(undefined, { reporter });
}
