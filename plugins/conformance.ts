/**
 * The test kits for policies.
 *
 * @example
 * ```ts ignore
 * import { testSchedulerPolicy } from "@infinite-llm/runtime/plugin-testing";
 * import mine from "./mine.ts";
 *
 * testSchedulerPolicy({ plugin: mine });
 * ```
 *
 * `memoryConformance` does the same for a memory policy.
 *
 * @module
 */
import type { PolicyInvariant } from "./invariant.ts";
import { SCHEDULER_INVARIANTS } from "./invariants.ts";
import { MEMORY_INVARIANTS } from "./memory_invariants.ts";
import type { MemoryPlugin, PluginBase, SchedulerPlugin } from "./types.ts";

/** How thoroughly to test a policy. */
export interface ConformanceOptions {
  /** Its options. @default {an empty object} */
  readonly config?: unknown;
  /** Names of checks to leave out. */
  readonly skip?: readonly string[];
  /** Seed of the random views. @default {1} */
  readonly seed?: number;
  /** Views per check. @default {200} */
  readonly rounds?: number;
  /** Registers a test. @default {Deno.test} */
  readonly register?: (name: string, run: () => Promise<void>) => void;
}

/** What to test, and how thoroughly. Checks: handshake, create, admit, rank, plan, score, observe, inputs, replay, isolation, liveness. */
export interface SchedulerConformanceOptions extends ConformanceOptions {
  /** The policy. */
  readonly plugin: SchedulerPlugin;
}

/** What to test, and how thoroughly. Checks: handshake, create, place, move, evict, inputs, replay, isolation. */
export interface MemoryConformanceOptions extends ConformanceOptions {
  /** The policy. */
  readonly plugin: MemoryPlugin;
}

/**
 * Registers one test for each thing a scheduler policy must do.
 *
 * @throws {RangeError} when `skip` names a check that does not exist.
 */
export function testSchedulerPolicy(options: SchedulerConformanceOptions): void {
  registerChecks(SCHEDULER_INVARIANTS, options);
}

/**
 * Registers one test for each thing a memory policy must do.
 *
 * @throws {RangeError} when `skip` names a check that does not exist.
 */
export function memoryConformance(options: MemoryConformanceOptions): void {
  registerChecks(MEMORY_INVARIANTS, options);
}

function registerChecks<Plugin extends PluginBase>(
  invariants: readonly PolicyInvariant<Plugin>[],
  options: ConformanceOptions & { readonly plugin: Plugin },
): void {
  const { plugin, config, skip = [], seed = 1, rounds = 200, register = Deno.test } = options;
  const names = invariants.map(({ name }) => name);
  const unknown = skip.find((name) => !names.includes(name));
  if (unknown !== undefined) {
    throw new RangeError(`Cannot skip check "${unknown}": wanted one of ${names.join(", ")}`);
  }
  for (const { name, says, check } of invariants) {
    if (!skip.includes(name)) register(`${plugin.name} ${says}`, () => check({ plugin, config, seed, rounds }));
  }
}
