/**
 * The benchmark suite: our engine and server beside native llama.cpp and wllama, on one model file, in one run.
 *
 *     deno task bench --llama-bench PATH --llama-server PATH
 *
 * Prints a table and writes JSON. `docs/perf` explains the method, `bench/report.ts` makes Markdown of the JSON.
 *
 * @module
 */
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { runRows } from "./bench_run.ts";
import { type BenchOptions, parseOptions, USAGE } from "./options.ts";
import { buildCeilings, buildTable, textTable } from "./table.ts";

/** Where the JSON goes unless a file is named. */
function defaultFile(): string {
  const stamp = new Date().toISOString().slice(0, 19).replaceAll(":", "");
  return fileURLToPath(new URL(`./out/${stamp}.json`, import.meta.url));
}

/**
 * Runs the benchmark with command-line arguments. Returns the exit code: 0 when every row asked for was measured, 1 when
 * one of ours was not, 2 when the arguments are wrong. A missed goal is a result, not a failure.
 */
export async function runBench(args: string[]): Promise<number> {
  let options: BenchOptions | undefined;
  try {
    options = parseOptions(args, { model: Deno.env.get("INFINITE_LLM_MODEL") });
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    console.error(error.message);
    return 2;
  }
  if (options === undefined) {
    console.log(USAGE);
    return 0;
  }
  const file = options.json ?? defaultFile();
  Deno.mkdirSync(dirname(file), { recursive: true });
  const result = await runRows(options, {
    log: (line) => console.error(line),
    save: (result) => Deno.writeTextFileSync(file, `${JSON.stringify(result, undefined, 2)}\n`),
  });
  console.log(textTable(buildTable(result)));
  if (Object.keys(result.ceilings).length > 0) console.log(`\n${textTable(buildCeilings(result))}\n`);
  for (const note of result.notes) console.log(`left out: ${note}`);
  const { load, commit } = result;
  console.log(`commit ${commit}; load average ${load.before.join(" ")} before, ${load.after.join(" ")} after`);
  console.log(`written to ${file}`);
  return result.rows.length === options.rows.length ? 0 : 1;
}

if (import.meta.main) Deno.exit(await runBench(Deno.args));
