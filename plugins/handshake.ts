/**
 * Reads a plugin out of whatever a module exports. Every property is read once, so that getters and proxies cannot
 * show one face to the check and another to the host.
 *
 * @module
 */
import { PluginError, reasonOf } from "./error.ts";
import { type JsonSchema, PLUGIN_API, type SchedulerPlugin } from "./types.ts";

/** Optional hooks of a scheduler policy. */
export const SCHEDULER_HOOKS: readonly ["admit", "rank", "plan", "score", "observe", "dispose"] = [
  "admit",
  "rank",
  "plan",
  "score",
  "observe",
  "dispose",
];

const KNOWN_KEYS: ReadonlySet<string> = new Set([
  "api",
  "kind",
  "name",
  "version",
  "configSchema",
  "create",
  ...SCHEDULER_HOOKS,
]);
const KEBAB_CASE = /^[a-z][a-z0-9]*(-[a-z0-9]+)*$/;
const SEMANTIC_VERSION = /^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$/;

/**
 * The scheduler policy that `value` is, as a plain frozen object whose hooks call the original.
 *
 * @param specifier Where it comes from, for messages.
 * @throws {PluginError} when it is no scheduler policy or was written for another interface version.
 */
export function readSchedulerPlugin(value: unknown, specifier: string): SchedulerPlugin {
  const refuse = (wanted: string, actual: string, cause?: unknown): PluginError =>
    new PluginError(`Cannot load plugin ${specifier}: wanted ${wanted}, got ${actual}`, { plugin: specifier, cause });
  if (typeof value !== "object" || value === null) {
    throw refuse("a plugin object as default export", kindOf(value));
  }
  const read = (key: string): unknown => {
    try {
      return Reflect.get(value, key);
    } catch (error) {
      throw refuse(`a readable property "${key}"`, `an exception from reading it (${reasonOf(error)})`, error);
    }
  };
  if (value instanceof Promise) value.catch(() => {});
  if (typeof read("then") === "function") throw refuse("a plugin object as default export", "a promise");
  const api = read("api");
  if (api !== PLUGIN_API) {
    throw refuse(
      `plugin API ${PLUGIN_API}`,
      api === undefined ? "none" : `a plugin written for API ${kindOf(api) === "number" ? api : kindOf(api)}`,
    );
  }
  const kind = read("kind");
  if (kind !== "scheduler") throw refuse(`kind "scheduler"`, quoted(kind));
  const name = read("name");
  if (typeof name !== "string" || name.length > 64 || !KEBAB_CASE.test(name)) {
    throw refuse("a name in kebab-case of at most 64 characters", quoted(name));
  }
  const version = read("version");
  if (typeof version !== "string" || version.length > 64 || !SEMANTIC_VERSION.test(version)) {
    throw refuse("a semantic version", quoted(version));
  }
  const configSchema = read("configSchema");
  if (configSchema !== undefined && !isSchema(configSchema)) {
    throw refuse("a JSON Schema object as configSchema", kindOf(configSchema));
  }
  const hook = (key: string): Hook | undefined => {
    const found = read(key);
    if (found === undefined) return undefined;
    if (typeof found !== "function") throw refuse(`a function as ${key}`, kindOf(found));
    return (...given: unknown[]) => Reflect.apply(found, value, given);
  };
  const create = hook("create");
  if (create === undefined) throw refuse("a function as create", "none");
  const hooks = SCHEDULER_HOOKS.map((key) => [key, hook(key)] as const).filter(([, found]) => found !== undefined);
  return Object.freeze({
    api: PLUGIN_API,
    kind,
    name,
    version,
    ...(configSchema === undefined ? {} : { configSchema }),
    create,
    ...Object.fromEntries(hooks),
  });
}

/** Properties of a plugin object that this interface version does not know, for example misspelt hooks. */
export function unknownKeys(value: unknown): readonly string[] {
  if (typeof value !== "object" || value === null) return [];
  try {
    return Object.keys(value).filter((key) => !KNOWN_KEYS.has(key));
  } catch {
    return [];
  }
}

type Hook = (...given: unknown[]) => ReturnType<typeof Reflect.apply>;

function isSchema(value: unknown): value is JsonSchema {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function kindOf(value: unknown): string {
  return value === null ? "null" : value === undefined ? "none" : typeof value;
}

function quoted(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value) : kindOf(value);
}
