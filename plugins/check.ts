/**
 * Checks a plugin file before it goes live. Types are not checked: `deno check FILE` does that.
 *
 * @module
 */
import { reasonOf } from "./error.ts";
import { readSchedulerPlugin } from "./handshake.ts";
import { SCHEDULER_INVARIANTS } from "./invariants.ts";
import { importDefault, type LoadOptions } from "./load.ts";
import { checkOptions } from "./options.ts";
import type { SchedulerPlugin } from "./types.ts";

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
  readonly plugin?: { readonly kind: "scheduler"; readonly name: string; readonly version: string };
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
  const report = (plugin?: SchedulerPlugin): CheckReport => ({
    specifier,
    ...(plugin && { plugin: { kind: plugin.kind, name: plugin.name, version: plugin.version } }),
    checks,
    ok: checks.every(({ ok }) => ok),
  });
  const module = await attempt("loads", () => importDefault(specifier, options));
  if (module === undefined) return report();
  const read = await attempt("is a scheduler policy", () => readSchedulerPlugin(module.value.value, specifier));
  if (read === undefined) return report();
  const plugin = read.value;
  // The checks see what the module exports, as a host does; it has just been read as a policy.
  const subject = { plugin: module.value.value as SchedulerPlugin, config: options.config };
  const { seed = 1, rounds = 200 } = options;
  if (await attempt("accepts its options", () => checkOptions(plugin, options.config)) === undefined) {
    return report(plugin);
  }
  for (const { name, says, check } of SCHEDULER_INVARIANTS) {
    const passed = await attempt(says, () => check({ ...subject, seed, rounds }));
    if (passed === undefined && name === "create") break;
  }
  return report(plugin);
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
