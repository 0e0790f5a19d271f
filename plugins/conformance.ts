/**
 * The test kit for scheduler policies.
 *
 * @example
 * ```ts ignore
 * import { testSchedulerPolicy } from "@infinite-llm/runtime/plugin-testing";
 * import mine from "./mine.ts";
 *
 * testSchedulerPolicy({ plugin: mine });
 * ```
 *
 * @module
 */
import { SCHEDULER_INVARIANTS } from "./invariants.ts";
import type { SchedulerPlugin } from "./types.ts";

/** What to test, and how thoroughly. */
export interface SchedulerConformanceOptions {
  /** The policy. */
  readonly plugin: SchedulerPlugin;
  /** Its options. @default {an empty object} */
  readonly config?: unknown;
  /** Names of checks to leave out: handshake, create, admit, rank, plan, observe, inputs, replay, isolation, liveness. */
  readonly skip?: readonly string[];
  /** Seed of the random views. @default {1} */
  readonly seed?: number;
  /** Views per check. @default {200} */
  readonly rounds?: number;
  /** Registers a test. @default {Deno.test} */
  readonly register?: (name: string, run: () => Promise<void>) => void;
}

/**
 * Registers one test for each thing a scheduler policy must do.
 *
 * @throws {RangeError} when `skip` names a check that does not exist.
 */
export function testSchedulerPolicy(options: SchedulerConformanceOptions): void {
  const { plugin, config, skip = [], seed = 1, rounds = 200, register = Deno.test } = options;
  const names = SCHEDULER_INVARIANTS.map(({ name }) => name);
  const unknown = skip.find((name) => !names.includes(name));
  if (unknown !== undefined) {
    throw new RangeError(`Cannot skip check "${unknown}": wanted one of ${names.join(", ")}`);
  }
  for (const { name, says, check } of SCHEDULER_INVARIANTS) {
    if (!skip.includes(name)) register(`${plugin.name} ${says}`, () => check({ plugin, config, seed, rounds }));
  }
}
