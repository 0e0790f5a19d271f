/**
 * Checks a plugin's options against the schema it states.
 *
 * @module
 */
import { PluginError, reasonOf } from "./error.ts";
import type { PluginBase } from "./types.ts";

/**
 * A frozen copy of the options with the schema's defaults filled in. Absent options are an empty object.
 *
 * @throws {PluginError} when the options do not fit the schema, there is no schema for them, or it is not valid.
 */
export async function checkOptions(
  plugin: Pick<PluginBase, "name" | "configSchema">,
  config: unknown = {},
): Promise<Readonly<Record<string, unknown>>> {
  const refuse = (message: string, cause?: unknown): PluginError =>
    new PluginError(`Cannot configure plugin ${plugin.name}: ${message}`, { plugin: plugin.name, cause });
  if (typeof config !== "object" || config === null || Array.isArray(config)) {
    throw refuse(`wanted an object of options, got ${JSON.stringify(config) ?? typeof config}`);
  }
  let copy: Record<string, unknown>;
  try {
    copy = structuredClone({ ...config });
  } catch (error) {
    throw refuse(`wanted options of plain data, got ${reasonOf(error)}`, error);
  }
  if (plugin.configSchema === undefined) {
    const keys = Object.keys(copy);
    if (keys.length > 0) throw refuse(`wanted no options (it has no configSchema), got ${keys.join(", ")}`);
    return Object.freeze({});
  }
  // Loading the validator takes longer than loading a policy: only those with options pay for it.
  const { Ajv2020 } = await import("ajv/2020");
  const ajv = new Ajv2020({ strict: false, useDefaults: true, logger: false });
  let valid: boolean;
  try {
    valid = ajv.validate(plugin.configSchema, copy) === true;
  } catch (error) {
    throw refuse(`wanted a JSON Schema (2020-12) as configSchema, got ${reasonOf(error)}`, error);
  }
  if (!valid) {
    const found = ajv.errors?.[0]?.params.additionalProperty;
    const detail = typeof found === "string" ? ` ("${found}")` : "";
    throw refuse(`${ajv.errorsText(ajv.errors, { dataVar: "options" })}${detail}`);
  }
  deepFreeze(copy);
  return copy;
}

function deepFreeze(value: unknown): void {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return;
  Object.freeze(value);
  Object.values(value).forEach(deepFreeze);
}
