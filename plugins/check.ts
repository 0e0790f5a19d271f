/**
 * Checks a plugin file before it goes live. Types are not checked: `deno check FILE` does that.
 *
 * @module
 */
import { reasonOf } from "./error.ts";
import { type PluginKind, readPlugin } from "./handshake.ts";
import type { InvariantSubject, PolicyInvariant } from "./invariant.ts";
import { SCHEDULER_INVARIANTS } from "./invariants.ts";
import { importDefault, type LoadOptions } from "./load.ts";
import { MEMORY_INVARIANTS } from "./memory_invariants.ts";
import { checkOptions } from "./options.ts";
import type { MemoryPlugin, SchedulerPlugin } from "./types.ts";

/** One thing that was checked. */
export interface CheckResult {
  /** What a sound plugin does. */
  readonly says: string;
  /** Whether this one does. */
  readonly ok: boolean;
  /** Why it does not. */
  readonly detail?: string;
}

/** What came of the checks. */
export interface CheckReport {
  /** What was checked. */
  readonly specifier: string;
  /** What the plugin states about itself, once it is known to be one. */
  readonly plugin?: { readonly kind: PluginKind; readonly name: string; readonly version: string };
  /** Checks in the order they ran; those that make no sense after a failure are left out. */
  readonly checks: readonly CheckResult[];
  /** Whether all passed. */
  readonly ok: boolean;
}

/**
 * Loads a plugin and runs every check of the interface on it. The plugin runs in this process, with all of its rights.
 */
export async function checkPlugin(
  specifier: string,
  options: LoadOptions & { readonly config?: unknown; readonly seed?: number; readonly rounds?: number } = {},
): Promise<CheckReport> {
  const checks: CheckResult[] = [];
  const attempt = async <T>(says: string, run: () => T | Promise<T>): Promise<{ readonly value: T } | undefined> => {
    try {
      const value = await run();
      checks.push({ says, ok: true });
      return { value };
    } catch (error) {
      checks.push({ says, ok: false, detail: reasonOf(error) });
      return undefined;
    }
  };
  const report = (plugin?: SchedulerPlugin | MemoryPlugin): CheckReport => ({
    specifier,
    ...(plugin && { plugin: { kind: plugin.kind, name: plugin.name, version: plugin.version } }),
    checks,
    ok: checks.every(({ ok }) => ok),
  });
  const module = await attempt("loads", () => importDefault(specifier, options));
  if (module === undefined) return report();
  const read = await attempt("is a policy", () => readPlugin(module.value.value, specifier));
  if (read === undefined) return report();
  const plugin = read.value;
  if (await attempt("accepts its options", () => checkOptions(plugin, options.config)) === undefined) {
    return report(plugin);
  }
  for (const { name, says, check } of checksOf(plugin.kind, { ...options, exported: module.value.value })) {
    const passed = await attempt(says, check);
    if (passed === undefined && name === "create") break;
  }
  return report(plugin);
}

/** The checks of a kind, ready to run on what the module exports, which has been read as a policy of that kind. */
function checksOf(
  kind: PluginKind,
  { exported, config, seed = 1, rounds = 200 }: {
    readonly exported: unknown;
    readonly config?: unknown;
    readonly seed?: number;
    readonly rounds?: number;
  },
): readonly { readonly name: string; readonly says: string; readonly check: () => Promise<void> }[] {
  const bind = <Plugin>(
    invariants: readonly PolicyInvariant<Plugin>[],
    subject: InvariantSubject<Plugin>,
  ) => invariants.map(({ name, says, check }) => ({ name, says, check: () => check(subject) }));
  // The checks see the module's own object, as a host does, and not the copy that was read.
  return kind === "scheduler"
    ? bind(SCHEDULER_INVARIANTS, { plugin: exported as SchedulerPlugin, config, seed, rounds })
    : bind(MEMORY_INVARIANTS, { plugin: exported as MemoryPlugin, config, seed, rounds });
}

/** The report as lines of text for people. */
export function reportLines({ specifier, plugin, checks, ok }: CheckReport): readonly string[] {
  const failed = checks.filter((check) => !check.ok).length;
  return [
    plugin === undefined ? specifier : `${specifier}: ${plugin.kind} policy ${plugin.name} ${plugin.version}`,
    ...checks.map((check) => check.ok ? `  ok      ${check.says}` : `  FAILED  ${check.says}: ${check.detail}`),
    ok ? `${checks.length} checks passed` : `${failed} of ${checks.length} checks failed`,
  ];
}
