/**
 * Runs this program again as a child, with no more rights than it has itself.
 *
 * @module
 */
import { dirname } from "node:path";
import { CUDA_PATH_VARIABLE, CudaLibraries, SEARCH_VARIABLES } from "../../../ffi/cuda/cuda.ts";
import { loaderVariables } from "../../../ffi/loader_variables.ts";
import { flagsOf, flagVariable } from "../flags.ts";

/** Rights that are given where this program has them; whole kinds go first. */
interface Right {
  /** Permission flag without `--allow-`. */
  readonly flag: "net" | "read" | "write" | "env" | "ffi" | "run" | "sys" | "import";
  /** What a child needs of this kind, each with how to ask whether this program has it. */
  readonly parts: readonly (readonly [value: string, ask: Deno.PermissionDescriptor])[];
}

const ENVIRONMENT = ["INFINITE_LLM_*", "HF_*", "HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "USERPROFILE", "SystemRoot"]
  .concat("DENO_DIR", "TZ", SEARCH_VARIABLES.filter((name) => !name.startsWith("INFINITE_LLM_") && name !== "HOME"));
const C_LIBRARIES = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6"];

/** What {@linkcode ownPermissions} depends on. */
export interface OwnPermissionsOptions {
  /** Directory the child writes to. */
  readonly cacheDirectory: string;
  /** Libraries of the GPU that it loads. Default: those that are found. */
  readonly libraries?: readonly string[];
  /** Tells whether this program has a right. Default: asks the runtime. */
  readonly granted?: (ask: Deno.PermissionDescriptor) => boolean;
}

/** Permission flags of this program, as far as a server needs them. */
export function ownPermissions(options: OwnPermissionsOptions): string[] {
  const { cacheDirectory, libraries = CudaLibraries.find().paths, granted = isGranted } = options;
  const deno = Deno.execPath();
  const rights: readonly Right[] = [
    { flag: "net", parts: [["127.0.0.1", { name: "net", host: "127.0.0.1" }]] },
    { flag: "read", parts: [] },
    { flag: "write", parts: [[cacheDirectory, { name: "write", path: cacheDirectory }]] },
    // A pattern is asked by a name that it covers.
    {
      flag: "env",
      parts: ENVIRONMENT.map((name) => [name, { name: "env", variable: name.replace("*", "PORT") }]),
    },
    { flag: "ffi", parts: [...C_LIBRARIES, ...libraries].map((path) => [path, { name: "ffi", path }]) },
    {
      flag: "run",
      parts: [["python3", { name: "run", command: "python3" }], [deno, { name: "run", command: deno }]],
    },
    { flag: "sys", parts: [] },
    { flag: "import", parts: [] },
  ];
  return rights.flatMap(({ flag, parts }) => {
    if (granted({ name: flag })) return [`--allow-${flag}`];
    const values = parts.filter(([, ask]) => granted(ask)).map(([value]) => value);
    return values.length === 0 ? [] : [`--allow-${flag}=${values.join(",")}`];
  });
}

/**
 * Starts this program with `args` and the given permission flags, its standard streams piped. Variables that stand for
 * flags are unset: whatever they say has become part of `args`. Where the loader's may not be passed on, the child is told
 * otherwise where the GPU's libraries are.
 */
export function spawnSelf(args: readonly string[], permissions: readonly string[]): Deno.ChildProcess {
  const loader = loaderVariables();
  const libraries = Object.keys(loader).length === 0 ? {} : libraryDirectories(CudaLibraries.find().paths);
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-prompt", ...permissions, Deno.mainModule, ...args],
    env: { ...Object.fromEntries(flagsOf("serve").map((key) => [flagVariable(key), ""])), ...loader, ...libraries },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** The variable that names the directories of libraries, so that a child finds the same ones, first. */
export function libraryDirectories(paths: readonly string[]): Readonly<Record<string, string>> {
  const directories = [...new Set(paths.map((path) => dirname(path)))];
  return directories.length === 0 ? {} : { [CUDA_PATH_VARIABLE]: directories.join(":") };
}

function isGranted(ask: Deno.PermissionDescriptor): boolean {
  return Deno.permissions.querySync(ask).state === "granted";
}
