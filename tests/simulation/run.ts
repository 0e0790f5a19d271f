/**
 * Simulates clusters under faults, seed by seed.
 *
 *     deno task sim                      100,000 seeds
 *     deno task sim --seeds 1000 --first 5000 --jobs 2
 *     deno task sim --seed 123 --trace   one seed, event by event
 *
 * @module
 */
import { parseArgs } from "node:util";
import { runFleet } from "./fleet.ts";
import { type RunResult, runSeed } from "./world.ts";

/** Runs between two lines of progress. */
const PROGRESS_RUNS = 500;

/** One failure as text: what was broken, the events before it, and the command that repeats it. */
export function describeFailure(result: RunResult, options: { readonly events?: number } = {}): string {
  const { seed, events, virtualMs, failure } = result;
  if (failure === undefined) return `seed ${seed} broke nothing`;
  const cap = options.events === undefined ? "" : ` --events ${options.events}`;
  return [
    `seed ${seed} broke a promise at event ${events}, ${(virtualMs / 1000).toFixed(3)} s`,
    `  ${failure.message}`,
    ...(failure.stack === undefined ? [] : [failure.stack]),
    ...failure.history.slice(-20).map((line) => `    ${line}`),
    `  replay: deno task sim --seed ${seed}${cap} --trace`,
  ].join("\n");
}

function numberOf(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) {
    throw new RangeError(`Cannot simulate: wanted a whole number for --${name}, got ${text}`);
  }
  return value;
}

/** Runs the command line. @returns the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      seeds: { type: "string" },
      first: { type: "string" },
      events: { type: "string" },
      jobs: { type: "string" },
      seed: { type: "string" },
      "stop-after": { type: "string" },
      trace: { type: "boolean" },
      quiet: { type: "boolean" },
    },
  });
  const events = numberOf("events", values.events);
  const seed = numberOf("seed", values.seed);
  if (seed !== undefined) {
    const trace = values.trace === true ? (line: string) => console.log(line) : undefined;
    const result = runSeed({ seed, events, trace });
    console.log(
      result.failure === undefined
        ? `seed ${seed}: ${result.events} events, ${(result.virtualMs / 1000).toFixed(1)} s, hash ${result.hash}`
        : describeFailure(result, { events }),
    );
    return result.failure === undefined ? 0 : 1;
  }
  const seeds = numberOf("seeds", values.seeds) ?? 100_000;
  const first = numberOf("first", values.first) ?? 1;
  const jobs = numberOf("jobs", values.jobs) ?? navigator.hardwareConcurrency;
  const startMs = performance.now();
  let done = 0;
  let failed = 0;
  const result = await runFleet({
    first,
    seeds,
    events,
    jobs,
    stopAfter: numberOf("stop-after", values["stop-after"]),
    onRun(run) {
      done++;
      if (run.failure !== undefined) {
        failed++;
        console.error(describeFailure(run, { events }));
      }
      if (done % PROGRESS_RUNS === 0 && values.quiet !== true) {
        const seconds = (performance.now() - startMs) / 1000;
        console.error(`${done} of ${seeds} seeds, ${failed} failed, ${(done / seconds).toFixed(1)} seeds/s`);
      }
    },
  });
  if (values.quiet !== true) console.log(result.statistics.table(result.runs));
  const seconds = (performance.now() - startMs) / 1000;
  console.log(
    `${result.runs} seeds, ${result.failures.length} failed, ${result.events} events, ${seconds.toFixed(1)} s`,
  );
  if (result.failures.length > 0) console.log(`failed: ${result.failures.map(({ seed }) => seed).join(" ")}`);
  return result.failures.length > 0 ? 1 : 0;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
