/**
 * Reads a plugin out of whatever a module exports. Every property is read once, so that getters and proxies cannot
 * show one face to the check and another to the host.
 *
 * @module
 */
import { PluginError, reasonOf } from "./error.ts";
import { type JsonSchema, type MemoryPlugin, PLUGIN_API, type SchedulerPlugin } from "./types.ts";

/** Kind of a plugin. */
export type PluginKind = "scheduler" | "memory";

const HOOKS: Readonly<Record<PluginKind, readonly string[]>> = {
  scheduler: ["admit", "rank", "plan", "score", "observe", "dispose"],
  memory: ["place", "move", "evict", "dispose"],
};
const COMMON_KEYS: readonly string[] = ["api", "kind", "name", "version", "configSchema", "create"];
const KEBAB_CASE = /^[a-z][a-z0-9]*(-[a-z0-9]+)*$/;
const SEMANTIC_VERSION = /^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$/;

/**
 * The scheduler policy that `value` is, as a plain frozen object whose hooks call the original.
 *
 * @param specifier Where it comes from, for messages.
 * @throws {PluginError} when it is no scheduler policy or was written for another interface version.
 */
export function readSchedulerPlugin(value: unknown, specifier: string): SchedulerPlugin {
  return Object.freeze({ ...readStatement(value, { specifier, kinds: ["scheduler"] }), kind: "scheduler" });
}

/**
 * The memory policy that `value` is, as a plain frozen object whose hooks call the original.
 *
 * @param specifier Where it comes from, for messages.
 * @throws {PluginError} when it is no memory policy or was written for another interface version.
 */
export function readMemoryPlugin(value: unknown, specifier: string): MemoryPlugin {
  return Object.freeze({ ...readStatement(value, { specifier, kinds: ["memory"] }), kind: "memory" });
}

/**
 * The policy of either kind that `value` is, as a plain frozen object whose hooks call the original.
 *
 * @param specifier Where it comes from, for messages.
 * @throws {PluginError} when it is no policy or was written for another interface version.
 */
export function readPlugin(value: unknown, specifier: string): SchedulerPlugin | MemoryPlugin {
  const stated = readStatement(value, { specifier, kinds: ["scheduler", "memory"] });
  return stated.kind === "scheduler"
    ? Object.freeze({ ...stated, kind: "scheduler" })
    : Object.freeze({ ...stated, kind: "memory" });
}

/** Properties of a plugin object that this interface version does not know, for example misspelt hooks. */
export function unknownKeys(value: unknown, kind: PluginKind): readonly string[] {
  if (typeof value !== "object" || value === null) return [];
  const known = new Set([...COMMON_KEYS, ...HOOKS[kind]]);
  try {
    return Object.keys(value).filter((key) => !known.has(key));
  } catch {
    return [];
  }
}

/** Everything a plugin states, each property read once. */
function readStatement(
  value: unknown,
  { specifier, kinds }: { readonly specifier: string; readonly kinds: readonly PluginKind[] },
) {
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
  const stated = read("kind");
  const kind = kinds.find((name) => name === stated);
  if (kind === undefined) throw refuse(`kind ${kinds.map((name) => `"${name}"`).join(" or ")}`, quoted(stated));
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
  const hooks = HOOKS[kind].map((key) => [key, hook(key)] as const).filter(([, found]) => found !== undefined);
  return {
    api: PLUGIN_API,
    kind,
    name,
    version,
    ...(configSchema === undefined ? {} : { configSchema }),
    create,
    ...Object.fromEntries(hooks),
  } as const;
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
