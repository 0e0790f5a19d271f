/**
 * Finds a policy by name, path or URL.
 *
 * @module
 */
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { fcfs } from "./builtin/fcfs.ts";
import { infiniteLlm } from "./builtin/infinite_llm.ts";
import { localOnly } from "./builtin/local_only.ts";
import { priority } from "./builtin/priority.ts";
import { spread } from "./builtin/spread.ts";
import { PluginError, reasonOf } from "./error.ts";
import { readMemoryPlugin, readSchedulerPlugin } from "./handshake.ts";
import type { MemoryPlugin, SchedulerPlugin } from "./types.ts";

/** Scheduler policies that come with the project, addressed as `builtin:NAME`. */
export const BUILTIN_SCHEDULERS: ReadonlyMap<string, SchedulerPlugin> = new Map<string, SchedulerPlugin>(
  [fcfs, priority].map((plugin) => [plugin.name, plugin]),
);

/** Memory policies that come with the project, addressed as `builtin:NAME`. */
export const BUILTIN_MEMORY_POLICIES: ReadonlyMap<string, MemoryPlugin> = new Map<string, MemoryPlugin>(
  [infiniteLlm, localOnly, spread].map((plugin) => [plugin.name, plugin]),
);

/** How a module is loaded. */
export interface LoadOptions {
  /** Directory that relative paths start from. @default {the working directory} */
  readonly directory?: string;
  /** Time in which the module's top level must finish, ms. @default {10000} */
  readonly timeoutMs?: number;
}

/**
 * Loads a scheduler policy from `builtin:NAME`, a path, or a URL (`file:`, `https:`, `jsr:`, `npm:`, `data:`). The
 * module runs with all rights of this process.
 *
 * @throws {PluginError} when there is no such module, it fails to load, or it is no scheduler policy.
 */
export async function loadSchedulerPlugin(specifier: string, options: LoadOptions = {}): Promise<SchedulerPlugin> {
  const { value } = await importDefault(specifier, { ...options, builtins: BUILTIN_SCHEDULERS });
  return readSchedulerPlugin(value, specifier);
}

/**
 * Loads a memory policy from where {@linkcode loadSchedulerPlugin} loads a scheduler policy.
 *
 * @throws {PluginError} when there is no such module, it fails to load, or it is no memory policy.
 */
export async function loadMemoryPlugin(specifier: string, options: LoadOptions = {}): Promise<MemoryPlugin> {
  const { value } = await importDefault(specifier, { ...options, builtins: BUILTIN_MEMORY_POLICIES });
  return readMemoryPlugin(value, specifier);
}

/**
 * The default export of a plugin module, unchecked; inside an object, because a promise would be awaited otherwise.
 *
 * @throws {PluginError} when there is no such module or it fails to load.
 */
export async function importDefault(
  specifier: string,
  options: LoadOptions & {
    /** Policies that `builtin:NAME` may name. @default {all of them} */
    readonly builtins?: ReadonlyMap<string, unknown>;
  } = {},
): Promise<{ readonly value: unknown }> {
  const refuse = (message: string, cause?: unknown): PluginError =>
    new PluginError(`Cannot load plugin ${specifier}: ${message}`, { plugin: specifier, cause });
  if (specifier.startsWith("builtin:")) {
    const { builtins = new Map<string, unknown>([...BUILTIN_SCHEDULERS, ...BUILTIN_MEMORY_POLICIES]) } = options;
    const builtin = builtins.get(specifier.slice("builtin:".length));
    if (builtin !== undefined) return { value: builtin };
    const names = [...builtins.keys()].map((name) => `builtin:${name}`);
    throw refuse(`wanted ${names.join(" or ")}, got no such built-in policy`);
  }
  const url = isUrl(specifier) ? specifier : await fileUrl(specifier, { ...options, refuse });
  const exports = await withinTime(import(url), { timeoutMs: options.timeoutMs ?? 10_000, refuse });
  if (!("default" in exports)) throw refuse("wanted a default export, got a module without one");
  try {
    return { value: exports.default };
  } catch (error) {
    // A module of a cycle may name a default export that was never initialised.
    throw refuse(`wanted a default export, got ${reasonOf(error)}`, error);
  }
}

/** Two letters at least: a Windows drive is no scheme. */
function isUrl(specifier: string): boolean {
  return /^[a-z][a-z0-9+.-]+:/i.test(specifier);
}

async function fileUrl(
  path: string,
  { directory, refuse }: LoadOptions & {
    readonly refuse: (message: string, cause: unknown) => PluginError;
  },
): Promise<string> {
  const absolute = directory === undefined ? resolve(path) : resolve(directory, path);
  let found: Deno.FileInfo;
  try {
    found = await Deno.stat(absolute);
  } catch (error) {
    throw refuse(
      error instanceof Deno.errors.NotFound
        ? `wanted a file, got nothing at ${absolute}`
        : `wanted a readable file, got ${reasonOf(error)}`,
      error,
    );
  }
  if (!found.isFile) {
    throw refuse(`wanted a file, got a ${found.isDirectory ? "directory" : "special file"}`, undefined);
  }
  return pathToFileURL(absolute).href;
}

async function withinTime(
  module: Promise<object & { readonly default?: unknown }>,
  { timeoutMs, refuse }: {
    readonly timeoutMs: number;
    readonly refuse: (message: string, cause?: unknown) => PluginError;
  },
): Promise<object & { readonly default?: unknown }> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(refuse(`wanted a module that loads within ${timeoutMs} ms, got one that does not finish`)),
      timeoutMs,
    );
  });
  try {
    return await Promise.race([module, timeout]);
  } catch (error) {
    if (error instanceof PluginError) throw error;
    throw refuse(`wanted a module that loads, got ${reasonOf(error)}`, error);
  } finally {
    clearTimeout(timer);
  }
}
