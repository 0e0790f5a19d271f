/**
 * Runs many seeds on several threads.
 *
 * @module
 */
import { Statistics } from "./statistics.ts";
import { type RunResult, runSeed } from "./world.ts";

/** What a thread is asked to run. */
export interface SimTask {
  /** First seed. */
  readonly first: number;
  /** Seeds. */
  readonly count: number;
  /** See `RunOptions.events`. */
  readonly events?: number;
}

/** Seeds to run. */
export interface FleetOptions {
  /** First seed. */
  readonly first: number;
  /** Seeds. */
  readonly seeds: number;
  /** See `RunOptions.events`. */
  readonly events?: number;
  /** Threads. */
  readonly jobs: number;
  /** Failures after which no more seeds are begun. @default {Infinity} */
  readonly stopAfter?: number;
  /** Told of every run. */
  readonly onRun?: (result: RunResult) => void;
}

/** What became of them. */
export interface FleetResult {
  /** Seeds that were run. */
  readonly runs: number;
  /** Events over all of them. */
  readonly events: number;
  /** Runs that broke a promise, by seed. */
  readonly failures: readonly RunResult[];
  /** What was exercised. */
  readonly statistics: Statistics;
}

/** Seeds a thread takes at a time. */
const CHUNK = 5;

/** Runs seeds; which ones does not depend on the threads unless `stopAfter` ends it early. */
export async function runFleet(options: FleetOptions): Promise<FleetResult> {
  const { first, seeds, events, jobs, stopAfter = Infinity, onRun } = options;
  const statistics = new Statistics();
  const failures: RunResult[] = [];
  const totals = { runs: 0, events: 0 };
  let next = first;
  const end = first + seeds;
  const take = (): SimTask | undefined => {
    if (next >= end || failures.length >= stopAfter) return undefined;
    const count = Math.min(CHUNK, end - next);
    const task = { first: next, count, events };
    next += count;
    return task;
  };
  const keep = (result: RunResult) => {
    totals.runs++;
    totals.events += result.events;
    statistics.add(result.counts);
    if (result.failure !== undefined) failures.push(result);
    onRun?.(result);
  };
  if (jobs <= 1) {
    for (let task = take(); task !== undefined; task = take()) {
      for (let i = 0; i < task.count; i++) keep(runSeed({ seed: task.first + i, events }));
    }
  } else {
    await Promise.all(Array.from({ length: jobs }, () => runThread(take, keep)));
  }
  failures.sort((a, b) => a.seed - b.seed);
  return { ...totals, failures, statistics };
}

async function runThread(take: () => SimTask | undefined, keep: (result: RunResult) => void): Promise<void> {
  const worker = new Worker(new URL("./sim_worker.ts", import.meta.url), { type: "module" });
  const { port1: port, port2 } = new MessageChannel();
  try {
    worker.postMessage(undefined, [port2]);
    for (let task = take(); task !== undefined; task = take()) {
      const answer = Promise.withResolvers<readonly RunResult[]>();
      port.onmessage = ({ data }: MessageEvent<readonly RunResult[]>) => answer.resolve(data);
      worker.onerror = (event) => {
        event.preventDefault();
        answer.reject(new Error(`Cannot simulate seeds from ${task?.first}: ${event.message}`));
      };
      port.postMessage(task);
      for (const result of await answer.promise) keep(result);
    }
  } finally {
    port.close();
    worker.terminate();
  }
}
