/**
 * Puts the values of flags together: command line before environment before configuration file before defaults.
 *
 * @module
 */
import { checkClusterFlags } from "./cluster_settings.ts";
import type { CommandName } from "./commands.ts";
import { FLAG_SPECS, type FlagKey, flagName, flagsOf, flagVariable, type Settings } from "./flags.ts";
import { readJson, readText } from "./flag_value.ts";
import { suggestion } from "./nearest.ts";
import { UsageError } from "./usage_error.ts";

/** Largest configuration file. */
const MAX_CONFIG_BYTES = 2 ** 20;

/** Where values come from. */
export interface SettingsSources {
  /** Which command asks. */
  readonly command: CommandName;
  /** Values of the command line. */
  readonly given: ReadonlyMap<FlagKey, unknown>;
  /** Reads an environment variable. */
  readonly env: (name: string) => string | undefined;
}

/**
 * The values of all flags for a command.
 *
 * @throws {UsageError} when flags contradict each other.
 * @throws {TypeError} when an environment variable or the configuration file holds something else than it should.
 */
export async function resolveSettings({ command, given, env }: SettingsSources): Promise<Settings> {
  const variables = readVariables(flagsOf(command), env);
  const path = given.get("config") ?? variables.get("config");
  const file = typeof path === "string" ? await readConfigFile(path) : new Map<FlagKey, unknown>();
  const values: Record<string, unknown> = {};
  for (const [key, flag] of FLAG_SPECS) {
    values[key] = [given, variables, file].find((source) => source.has(key))?.get(key) ?? flag.default;
  }
  const settings = values as Settings;
  checkTogether(settings);
  checkClusterFlags(command, settings);
  return settings;
}

function readVariables(
  keys: readonly FlagKey[],
  env: SettingsSources["env"],
): Map<FlagKey, unknown> {
  const values = new Map<FlagKey, unknown>();
  for (const key of keys) {
    const name = flagVariable(key);
    const text = env(name);
    const flag = FLAG_SPECS.get(key);
    // Empty variables count as unset: that is how scripts and service files unset them.
    if (text === undefined || text === "" || flag === undefined) continue;
    const read = readText(flag, text, { separator: "," });
    if ("wanted" in read) throw new TypeError(`Cannot use ${name}: wanted ${read.wanted}, got ${JSON.stringify(text)}`);
    values.set(key, read.value);
  }
  return values;
}

/** Reads a configuration file; flags of other commands are checked too and do nothing. */
async function readConfigFile(path: string): Promise<Map<FlagKey, unknown>> {
  const json = parse(await readLimited(path), path);
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new TypeError(`Cannot use ${path}: wanted a JSON object with flags, got ${describe(json)}`);
  }
  const keys = new Map([...FLAG_SPECS.keys()].filter((key) => key !== "config").map((key) => [flagName(key), key]));
  const values = new Map<FlagKey, unknown>();
  for (const [name, value] of Object.entries(json)) {
    const key = keys.get(name);
    const flag = key && FLAG_SPECS.get(key);
    if (key === undefined || flag === undefined) {
      throw new TypeError(`Cannot use ${path}: there is no flag "${name}"${suggestion(name, keys.keys())}`);
    }
    const read = readJson(flag, value);
    if ("wanted" in read) {
      throw new TypeError(`Cannot use "${name}" of ${path}: wanted ${read.wanted}, got ${JSON.stringify(value)}`);
    }
    values.set(key, read.value);
  }
  return values;
}

function parse(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new TypeError(`Cannot use ${path}: wanted JSON, got something else (${reason})`, { cause });
  }
}

async function readLimited(path: string): Promise<string> {
  const wrong = (found: string, cause?: unknown) =>
    new TypeError(`Cannot use ${path}: wanted a configuration file, found ${found}`, { cause });
  let info: Deno.FileInfo;
  try {
    info = await Deno.stat(path);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotCapable) throw cause;
    throw wrong(cause instanceof Deno.errors.NotFound ? "nothing" : "something unreadable", cause);
  }
  if (!info.isFile) throw wrong(info.isDirectory ? "a directory" : "a special file");
  if (info.size > MAX_CONFIG_BYTES) throw wrong(`${info.size} bytes where ${MAX_CONFIG_BYTES} are allowed`);
  return await Deno.readTextFile(path);
}

function describe(json: unknown): string {
  return Array.isArray(json) ? "a list" : json === null ? "null" : `a ${typeof json}`;
}

function checkTogether({ kvMemory, kvTokens, tlsCert, tlsKey }: Settings): void {
  if (kvMemory !== undefined && kvTokens !== undefined) {
    throw new UsageError("Cannot size the KV cache: wanted --kv-memory or --kv-tokens, got both");
  }
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    throw new UsageError(
      `Cannot serve HTTPS: wanted --tls-cert and --tls-key, got --${
        tlsCert === undefined ? "tls-key" : "tls-cert"
      } alone`,
    );
  }
}
