/**
 * Directories in which the CUDA libraries of a Linux host may lie.
 *
 * @module
 */
import { basename, dirname, isAbsolute, join } from "node:path";

/** What the directories depend on. */
export interface SearchPathOptions {
  /** Reads an environment variable; undefined also where that is not permitted. */
  readonly env: (name: string) => string | undefined;
  /** Directory that stands for `/` in the system's own paths. @default {"/"} */
  readonly root?: string;
  /** Processor of the host. @default {Deno.build.arch} */
  readonly arch?: typeof Deno.build.arch;
}

/** Environment variable that names directories to look in first, separated by colons. */
export const CUDA_PATH_VARIABLE = "INFINITE_LLM_CUDA_PATH";

/** Environment variables that this module reads. */
export const SEARCH_VARIABLES: readonly string[] = [
  CUDA_PATH_VARIABLE,
  "CUDA_HOME",
  "CUDA_PATH",
  "LD_LIBRARY_PATH",
  "VIRTUAL_ENV",
  "CONDA_PREFIX",
  "PATH",
  "HOME",
];

/**
 * Directories in the order in which they are looked at: {@linkcode CUDA_PATH_VARIABLE}, the toolkit that `CUDA_HOME` or
 * `CUDA_PATH` names, `LD_LIBRARY_PATH`, what `ldconfig` is configured with, the usual places of the driver, Python's
 * `nvidia` packages, and toolkits under `/usr/local`. Python is not run: its packages are found by looking.
 */
export function librarySearchPath(options: SearchPathOptions): readonly string[] {
  const { env, root = "/", arch = Deno.build.arch } = options;
  const system = (path: string) => join(root, path);
  const list = (name: string) => (env(name) ?? "").split(":").filter(isAbsolute);
  const found = new Set<string>();
  const add = (...paths: readonly string[]) => paths.forEach((path) => found.add(path));

  for (const path of list(CUDA_PATH_VARIABLE)) {
    add(path, join(path, "lib64"), join(path, "lib"), ...nvidiaFolders(path));
  }
  for (const name of ["CUDA_HOME", "CUDA_PATH"]) {
    for (const path of list(name)) add(join(path, "lib64"), join(path, "lib"));
  }
  add(...list("LD_LIBRARY_PATH"));
  add(system("/usr/lib/wsl/lib"));
  add(...configuredDirectories(system("/etc/ld.so.conf"), { system, depth: 0 }));
  add(
    ...[
      `/usr/lib/${arch}-linux-gnu`,
      `/lib/${arch}-linux-gnu`,
      "/usr/lib64",
      "/lib64",
      "/usr/lib",
      "/usr/local/nvidia/lib64",
      "/usr/local/nvidia/lib",
      "/run/opengl-driver/lib",
    ].map(system),
  );
  for (const prefix of pythonPrefixes(env, root)) {
    for (const packages of packageFolders(prefix)) add(...nvidiaFolders(packages));
  }
  const toolkits = entries(system("/usr/local")).filter((name) => /^cuda(-\d+(\.\d+)?)?$/.test(name)).sort(newestFirst);
  for (const name of toolkits) add(system(`/usr/local/${name}/lib64`));
  return [...found];
}

/** Names in a directory; none when it does not exist or may not be read. Nobody is asked for a permission. */
export function entries(path: string): readonly string[] {
  if (!readable(path)) return [];
  try {
    return [...Deno.readDirSync(path)].map(({ name }) => name).sort();
  } catch {
    // A place that is not there or closed to us holds nothing for us.
    return [];
  }
}

function readable(path: string): boolean {
  return Deno.permissions.querySync({ name: "read", path }).state === "granted";
}

interface Configuration {
  /** Puts the system's root before a path. */
  readonly system: (path: string) => string;
  /** How many files included this one. */
  readonly depth: number;
}

/** Directories that a configuration file of the dynamic loader names, with the files it includes. */
function configuredDirectories(file: string, { system, depth }: Configuration): readonly string[] {
  if (!readable(file)) return [];
  let text: string;
  try {
    text = Deno.readTextFileSync(file);
  } catch {
    return [];
  }
  return text.split("\n").map((line) => line.replace(/#.*/, "").trim()).flatMap((line) => {
    const include = /^include\s+(\S+)$/.exec(line)?.[1];
    if (include === undefined) return isAbsolute(line) ? [system(line)] : [];
    // An include that includes itself must not go round for ever.
    if (depth === 4) return [];
    const folder = isAbsolute(include) ? system(dirname(include)) : join(dirname(file), dirname(include));
    const [prefix, suffix] = basename(include).split("*");
    const names = suffix === undefined
      ? [basename(include)]
      : entries(folder).filter((name) => name.startsWith(prefix) && name.endsWith(suffix));
    return names.flatMap((name) => configuredDirectories(join(folder, name), { system, depth: depth + 1 }));
  });
}

/** Places under which Python may keep packages in `lib/python3.*`. */
function pythonPrefixes(env: SearchPathOptions["env"], root: string): readonly string[] {
  const home = env("HOME");
  return [
    env("VIRTUAL_ENV"),
    env("CONDA_PREFIX"),
    // A virtual environment is mostly found by its programs.
    ...(env("PATH") ?? "").split(":").filter((path) => basename(path) === "bin").map(dirname),
    home && join(home, ".local"),
    join(root, "/usr/local"),
    join(root, "/usr"),
  ].filter((path): path is string => path !== undefined && isAbsolute(path));
}

function packageFolders(prefix: string): readonly string[] {
  const versions = entries(join(prefix, "lib")).filter((name) => /^python3(\.\d+)?$/.test(name)).sort(newestFirst);
  return versions.flatMap((name) =>
    ["site-packages", "dist-packages"].map((folder) => join(prefix, "lib", name, folder))
  );
}

/** Folders with libraries of the `nvidia-*` packages that are installed in a package folder. */
function nvidiaFolders(packages: string): readonly string[] {
  const folder = join(packages, "nvidia");
  return [...entries(folder)].sort(newestFirst).map((name) => join(folder, name, "lib"));
}

function newestFirst(a: string, b: string): number {
  return b.localeCompare(a, "en", { numeric: true });
}
