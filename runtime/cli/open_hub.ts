/**
 * The model hub as flags and environment describe it.
 *
 * @module
 */
import { defaultCacheDirectory } from "../hub/cache_directory.ts";
import { readHubEnvironment } from "../hub/hub_environment.ts";
import { ModelHub } from "../hub/model_hub.ts";
import { ProgressBar } from "../hub/progress.ts";
import type { CommandInput } from "./main.ts";

/** A hub and the directory of its cache. */
export interface OpenedHub {
  /** The hub; reports transfers on standard error. */
  readonly hub: ModelHub;
  /** Where it keeps models. */
  readonly cacheDirectory: string;
}

/** Opens the hub that `settings` and environment describe. @throws {TypeError} when a variable is wrong or missing. */
export function openHub({ settings, env }: Pick<CommandInput, "settings" | "env">): OpenedHub {
  const cacheDirectory = settings.cacheDir ?? defaultCacheDirectory({ env });
  const environment = readHubEnvironment(env);
  const encoder = new TextEncoder();
  const hub = new ModelHub({
    ...environment,
    offline: settings.offline || environment.offline,
    cacheDirectory,
    reporter: new ProgressBar({
      terminal: Deno.stderr.isTerminal(),
      write(text) {
        for (let rest = encoder.encode(text); rest.length > 0;) rest = rest.subarray(Deno.stderr.writeSync(rest));
      },
    }),
  });
  return { hub, cacheDirectory };
}
