/**
 * The cluster benchmark: what distributed attention costs, as ratios in one run on one machine.
 *
 *     deno task bench:cluster [--rows ROW,...] [--quick]
 *
 * Prints a table and writes JSON. `docs/perf` explains the method, `bench/cluster/report.ts` makes Markdown of the JSON.
 *
 * @module
 */
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { textTable } from "../table.ts";
import { runClusterRows } from "./cluster_run.ts";
import { CLUSTER_USAGE, type ClusterBenchOptions, parseClusterOptions } from "./options.ts";
import { clusterDetails, clusterTable } from "./report.ts";

/** Where the JSON goes unless a file is named. */
function defaultFile(): string {
  const stamp = new Date().toISOString().slice(0, 19).replaceAll(":", "");
  return fileURLToPath(new URL(`../out/cluster-${stamp}.json`, import.meta.url));
}

/**
 * Runs the benchmark with command-line arguments. Returns the exit code: 0 when every row asked for was measured, 1 when
 * one was not, 2 when the arguments are wrong. A missed goal is a result, not a failure.
 */
export async function runClusterBench(args: string[]): Promise<number> {
  let options: ClusterBenchOptions | undefined;
  try {
    options = parseClusterOptions(args, { model: Deno.env.get("INFINITE_LLM_MODEL") });
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    console.error(error.message);
    return 2;
  }
  if (options === undefined) {
    console.log(CLUSTER_USAGE);
    return 0;
  }
  const file = options.json ?? defaultFile();
  Deno.mkdirSync(dirname(file), { recursive: true });
  const result = await runClusterRows(options, {
    log: (line) => console.error(line),
    save: (result) => Deno.writeTextFileSync(file, `${JSON.stringify(result, undefined, 2)}\n`),
  });
  console.log(textTable(clusterTable(result)));
  console.log(`\n${textTable(clusterDetails(result))}\n`);
  for (const note of result.notes) console.log(`left out: ${note}`);
  const { load, commit } = result;
  console.log(`commit ${commit}; load average ${load.before.join(" ")} before, ${load.after.join(" ")} after`);
  console.log(`written to ${file}`);
  return result.rows.length === options.rows.length ? 0 : 1;
}

if (import.meta.main) Deno.exit(await runClusterBench(Deno.args));
