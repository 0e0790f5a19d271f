/**
 * Finds a model for library users, as the command line does without flags.
 *
 * @module
 */
import { cacheDirectory } from "./cache_directory.ts";
import { readHubEnvironment } from "./hub_environment.ts";
import { DEFAULT_MODEL } from "./known_models.ts";
import { ModelHub } from "./model_hub.ts";
import type { TransferReporter } from "./progress.ts";

/** How {@linkcode findModel} tells about transfers. */
export interface FindModelOptions {
  /** Told about what is fetched. @default {silence} */
  readonly reporter?: TransferReporter;
}

/**
 * Path of the model that `name` names: a path, `hf:org/repo[:file]`, or a known model's name (SmolLM2-135M-Instruct by
 * default). What is neither on the disk nor in the cache is fetched into the cache. Reads the environment variables of
 * the command line (`INFINITE_LLM_CACHE`, `HF_TOKEN`, `HF_ENDPOINT`, …).
 *
 * @throws {Error} naming every source that did not give it.
 */
export async function findModel(name: string = DEFAULT_MODEL, options: FindModelOptions = {}): Promise<string> {
  const env = (variable: string) => Deno.env.get(variable);
  const hub = new ModelHub({ ...readHubEnvironment(env), cacheDirectory: cacheDirectory({ env }), ...options });
  const { path } = await hub.find(name);
  return path;
}
