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
  const { runBench }: { runBench: (args: string[]) => Promise<number> } = await import(suite);
  return await runBench(args);
}

if (import.meta.main) Deno.exit(await main(Deno.args, { version: config.version, bench }));
