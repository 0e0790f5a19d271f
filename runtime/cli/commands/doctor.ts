/**
 * `infinite-llm doctor`.
 *
 * @module
 */
import { join } from "node:path";
import { defaultCacheDirectory } from "../../hub/cache_directory.ts";
import { aligned } from "../aligned.ts";
import { gpuReport } from "../gpu_report.ts";
import type { CommandInput } from "../main.ts";

/** Prints what this machine can compute with. Gives 1 when it has a GPU that cannot be used, else 0. */
export function doctor({ settings, env }: CommandInput): Promise<number> {
  const cacheDirectory = settings.cacheDir ?? defaultCacheDirectory({ env });
  const { state, rows } = gpuReport({ kernels: join(cacheDirectory, "kernels") });
  const cpu = `${navigator.hardwareConcurrency} processors, ${Deno.build.arch}, ${Deno.build.os}`;
  const verdict = {
    usable: "serve computes on GPU 0; --device cuda:N takes another one",
    none: "serve computes with WASM",
    broken: "serve computes with WASM: the GPU cannot be used, see above",
  }[state];
  const lines = [["Deno", Deno.version.deno], ["CPU", cpu], ...rows, ["result", verdict]];
  for (const line of aligned(lines)) console.log(line);
  return Promise.resolve(state === "broken" ? 1 : 0);
}
