/**
 * The command line of the GPU benchmark.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { PART_IDS, type PartId } from "./row.ts";

/** What was asked for. */
export interface GpuBenchOptions {
  /** Parts to run. */
  readonly parts: readonly PartId[];
  /** Whether PyTorch runs beside where there is one. */
  readonly peers: boolean;
  /** Whether only the most telling sizes are run. */
  readonly quick: boolean;
  /** Seed of prompts and weights. */
  readonly seed: number;
  /** Commit measured, where git does not tell. */
  readonly commit?: string;
  /** Where the JSON goes. By default a dated file under `bench/results`. */
  readonly json?: string;
}

/** Text of `--help`. */
export const GPU_USAGE = `Usage: deno task bench:gpu [options]

  --only PART,...   parts to run: ${PART_IDS.join(", ")}
  --no-peers        leave PyTorch out
  --quick           the most telling sizes alone
  --seed N          seed of prompts and weights (default 1)
  --commit TEXT     commit that is measured, where git does not tell
  --json FILE       where the result goes (default bench/results/DATE-gpu.json)
`;

/**
 * Reads the command line; undefined when it asks for help.
 *
 * @throws {TypeError} when an option is unknown or its value is out of range.
 */
export function parseGpuOptions(args: readonly string[]): GpuBenchOptions | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      "help": { type: "boolean", short: "h" },
      "only": { type: "string" },
      "no-peers": { type: "boolean", default: false },
      "quick": { type: "boolean", default: false },
      "seed": { type: "string", default: "1" },
      "commit": { type: "string" },
      "json": { type: "string" },
    },
  });
  if (values.help) return undefined;
  const seed = Number(values.seed);
  if (!Number.isSafeInteger(seed) || seed < 0 || values.seed.trim() === "") {
    throw new TypeError(`Cannot use --seed ${values.seed}: wanted a whole number of at least 0`);
  }
  const { quick, commit, json } = values;
  return { parts: parseParts(values.only), peers: !values["no-peers"], quick, seed, commit, json };
}

function parseParts(only: string | undefined): readonly PartId[] {
  if (only === undefined) return PART_IDS;
  const wanted = only.split(",");
  const unknown = wanted.find((name) => PART_IDS.every((id) => id !== name));
  if (unknown !== undefined) {
    throw new TypeError(`Cannot run part "${unknown}": wanted one of ${PART_IDS.join(", ")}`);
  }
  return PART_IDS.filter((id) => wanted.includes(id));
}
