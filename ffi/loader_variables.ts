/**
 * Variables that tell the system's loader which libraries a program gets.
 *
 * @module
 */

const LOADER_VARIABLES = ["LD_LIBRARY_PATH", "LD_PRELOAD"] as const;

/** What {@linkcode loaderVariables} depends on. */
export interface LoaderVariablesOptions {
  /** Tells whether this program may run any other. Default: asks the runtime. */
  readonly mayRunAll?: boolean;
}

/**
 * What a child's environment must say of these variables. Only a program that may run everything may pass them on: for
 * others the runtime refuses to start a child while they are set, so they are emptied there.
 */
export function loaderVariables(
  { mayRunAll = Deno.permissions.querySync({ name: "run" }).state === "granted" }: LoaderVariablesOptions = {},
): Readonly<Record<string, string>> {
  return mayRunAll ? {} : Object.fromEntries(LOADER_VARIABLES.map((name) => [name, ""]));
}
