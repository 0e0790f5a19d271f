/**
 * What a part of the GPU benchmark gets and gives.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import type { GpuRow, PartId } from "./row.ts";

/** What a part may use. */
export interface PartContext {
  /** Whether PyTorch runs beside. */
  readonly peers: boolean;
  /** Whether only the most telling sizes are run. */
  readonly quick: boolean;
  /** Seed of prompts and weights. */
  readonly seed: number;
  /** Takes a line about what goes on. */
  readonly log: (line: string) => void;
}

/** What a part measured. */
export interface PartResult {
  /** Rows in order. */
  readonly rows: readonly GpuRow[];
  /** Ceilings it measured: bytes or floating-point operations a second, by name. */
  readonly ceilings?: Readonly<Record<string, number>>;
  /** Version of PyTorch, if it ran. */
  readonly torch?: string;
  /** What was left out and why. */
  readonly notes?: readonly string[];
}

/** A part. */
export interface Part {
  /** Its name on the command line. */
  readonly id: PartId;
  /** Measures it. @throws {Error} when it cannot be measured. */
  run(context: PartContext): Promise<PartResult>;
}

/**
 * Runs a benchmark program of the repository in a process of its own, so that a failure or a lost GPU ends it alone, and
 * returns the JSON that it writes to the file after `--json`.
 *
 * @throws {Error} when it fails.
 */
export async function runProgram<T>(
  path: string,
  { args = [], log }: { readonly args?: readonly string[] } & Pick<PartContext, "log">,
): Promise<T> {
  const root = fileURLToPath(new URL("../..", import.meta.url));
  const json = await Deno.makeTempFile({ prefix: "gpu-bench-", suffix: ".json" });
  try {
    log(`${path} ${args.join(" ")}`.trimEnd());
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-check", "-A", path, ...args, "--json", json],
      cwd: root,
    }).output();
    if (code !== 0) {
      const said = new TextDecoder().decode(stderr).trim() || new TextDecoder().decode(stdout).trim();
      throw new Error(`Cannot measure with ${path}: it ended with code ${code}: ${said.slice(-600)}`);
    }
    return JSON.parse(await Deno.readTextFile(json)) as T;
  } finally {
    await Deno.remove(json);
  }
}
