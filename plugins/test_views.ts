/**
 * Views and hosts for tests and benches.
 *
 * @module
 */
import { SchedulerHost, type SchedulerHostOptions } from "./host.ts";
import type { QueueView, SchedulerPlugin } from "./types.ts";

/** One sequence of a view; what is absent is 0, and sequence `id` arrived at `id` ms. */
export interface Row {
  /** Handle. */
  readonly id: number;
  /** Prompt tokens. */
  readonly prompt?: number;
  /** Tokens without KV. */
  readonly pending?: number;
  /** Tokens generated. */
  readonly generated?: number;
  /** Most tokens to generate. */
  readonly maxTokens?: number;
  /** Priority. */
  readonly priority?: number;
  /** Arrival, ms. */
  readonly arrivedMs?: number;
  /** Whether it runs. */
  readonly running?: boolean;
}

/** A view of the rows. */
export function queueOf(...rows: readonly Row[]): QueueView {
  return {
    length: rows.length,
    id: Int32Array.from(rows, (row) => row.id),
    promptTokens: Int32Array.from(rows, (row) => row.prompt ?? 0),
    pendingTokens: Int32Array.from(rows, (row) => row.pending ?? 0),
    generatedTokens: Int32Array.from(rows, (row) => row.generated ?? 0),
    maxTokens: Int32Array.from(rows, (row) => row.maxTokens ?? 0),
    priority: Float64Array.from(rows, (row) => row.priority ?? 0),
    arrivedMs: Float64Array.from(rows, (row) => row.arrivedMs ?? row.id),
    blocks: Int32Array.from(rows, (row) => row.running ? 7 : 0),
    preemptions: new Int32Array(rows.length),
    running: Uint8Array.from(rows, (row) => row.running ? 1 : 0),
  };
}

/** A host, the lines it has logged, and its clock, which stands still unless it is set. */
export interface TestHost {
  /** The host. */
  readonly host: SchedulerHost;
  /** What it has logged. */
  readonly lines: readonly string[];
  /** Its clock. */
  readonly clock: { ms: number };
}

/** Opens a host over a policy named "mine" with the given hooks. */
export async function hostOf(
  hooks: Partial<SchedulerPlugin>,
  options: Partial<SchedulerHostOptions> = {},
): Promise<TestHost> {
  const lines: string[] = [];
  const clock = { ms: 0 };
  const host = await SchedulerHost.open(
    { api: 1, kind: "scheduler", name: "mine", version: "1.0.0", create: () => ({}), ...hooks },
    { now: () => clock.ms, random: () => 0.5, log: (line) => lines.push(line), ...options },
  );
  return { host, lines, clock };
}
