/**
 * The default model for tests that need a real one.
 *
 * @module
 */
import { defaultCacheDirectory } from "../runtime/hub/cache_directory.ts";
import { readHubEnvironment } from "../runtime/hub/hub_environment.ts";
import { DEFAULT_MODEL } from "../runtime/hub/known_models.ts";
import { ModelHub } from "../runtime/hub/model_hub.ts";
import { ProgressBar } from "../runtime/hub/progress.ts";

/**
 * Path of the default model's file: from the cache, or else fetched into it as `infinite-llm pull` does.
 *
 * @throws {Error} naming every source that did not give it.
 */
export async function realModelPath(): Promise<string> {
  const env = (name: string) => Deno.env.get(name);
  const hub = new ModelHub({
    ...readHubEnvironment(env),
    cacheDirectory: env("INFINITE_LLM_CACHE") || defaultCacheDirectory({ env }),
    reporter: new ProgressBar({ terminal: false, write: (text) => console.error(text.trimEnd()) }),
  });
  const { path } = await hub.find(DEFAULT_MODEL);
  return path;
}
