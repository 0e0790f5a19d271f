/**
 * The command line.
 *
 *     deno run -A cli.ts serve
 *
 * `deno run cli.ts --help` lists the commands.
 *
 * @module
 */
import config from "./deno.json" with { type: "json" };
import { main } from "./runtime/cli/main.ts";

/** Runs the benchmark suite, which a checkout has and an installation from a registry may lack. */
async function bench(args: string[]): Promise<number> {
  const suite = new URL("./bench/main.ts", import.meta.url).href;
  let loaded: { readonly runBench: (args: string[]) => Promise<number> };
  try {
    loaded = await import(suite);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`Cannot load the benchmark suite, which comes with the repository: ${reason}`, { cause });
  }
  return await loaded.runBench(args);
}

if (import.meta.main) Deno.exit(await main(Deno.args, { version: config.version, bench }));
