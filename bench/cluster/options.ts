/**
 * The command line of the cluster benchmark.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { DEFAULT_MODEL } from "../../runtime/hub/known_models.ts";
import { CLUSTER_ROW_IDS, type ClusterRowId } from "./rows.ts";

/** What was asked for. */
export interface ClusterBenchOptions {
  /** Path of a GGUF file, or a name as `serve --model` takes it. */
  readonly model: string;
  /** Rows to run. */
  readonly rows: readonly ClusterRowId[];
  /** Samples of each row. */
  readonly repeats: number;
  /** Tokens of context of the decode rows and the repair row; whole segments. */
  readonly context: number;
  /** Decode steps of one sample. */
  readonly steps: number;
  /** Sequences of the batch row. */
  readonly batch: number;
  /** Round trips of the first row, in all. */
  readonly roundTrips: number;
  /** Time everybody computes before the first sample, ms: the kernels are compiled in two tiers. */
  readonly warmMs: number;
  /** Time in which a row must be done, ms. */
  readonly rowMs: number;
  /** Seed of the prompts. */
  readonly seed: number;
  /** Whether sizes are small: the figures mean nothing then. */
  readonly quick: boolean;
  /** Where the JSON goes. By default a dated file under `bench/out`. */
  readonly json?: string;
}

/** Tokens of context without `--context`. */
const CONTEXT = 4096;
const QUICK_CONTEXT = 2048;
/** Tokens of a segment, the unit of a move. */
const SEGMENT = 256;

/** Text of `--help`. */
export const CLUSTER_USAGE = `Usage: deno task bench:cluster [options]

  --model MODEL     a .gguf file or a name as serve takes it (default INFINITE_LLM_MODEL or ${DEFAULT_MODEL})
  --rows ROW,...    rows to run: ${CLUSTER_ROW_IDS.join(", ")}
  --repeats N       samples of each row (default 5)
  --context N       tokens of context of the decode and repair rows, a multiple of 1,024 (default ${CONTEXT})
  --steps N         decode steps of one sample (default 64)
  --batch N         sequences of batch-quarter (default 8)
  --round-trips N   round trips of the first row (default 3000)
  --warm-ms N       how long everybody computes before the first sample (default 3000)
  --row-seconds N   how long a row may take (default 1500)
  --seed N          seed of the prompts (default 1)
  --quick           small sizes, to see that it works; the figures mean nothing
  --json FILE       where the result goes (default bench/out/cluster-DATE.json)
`;

/**
 * Reads the command line; undefined when it asks for help.
 *
 * @throws {TypeError} when an option is unknown or its value is out of range.
 */
export function parseClusterOptions(
  args: readonly string[],
  env: { readonly model?: string } = {},
): ClusterBenchOptions | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      "help": { type: "boolean", short: "h" },
      "model": { type: "string" },
      "rows": { type: "string" },
      "repeats": { type: "string" },
      "context": { type: "string" },
      "steps": { type: "string" },
      "batch": { type: "string" },
      "round-trips": { type: "string" },
      "warm-ms": { type: "string" },
      "row-seconds": { type: "string", default: "1500" },
      "seed": { type: "string", default: "1" },
      "quick": { type: "boolean", default: false },
      "json": { type: "string" },
    },
  });
  if (values.help) return undefined;
  const { quick } = values;
  const usual = (name: string, text: string | undefined, size: { full: number; quick: number; least?: number }) =>
    parseCount(name, text ?? String(quick ? size.quick : size.full), size.least ?? 1);
  const context = usual("context", values.context, { full: CONTEXT, quick: QUICK_CONTEXT });
  if (context % (4 * SEGMENT) !== 0) {
    throw new TypeError(`Cannot use --context ${context}: wanted a multiple of ${4 * SEGMENT}`);
  }
  return {
    model: values.model ?? env.model ?? DEFAULT_MODEL,
    rows: parseRows(values.rows),
    repeats: usual("repeats", values.repeats, { full: 5, quick: 1 }),
    context,
    steps: usual("steps", values.steps, { full: 64, quick: 8 }),
    batch: usual("batch", values.batch, { full: 8, quick: 2 }),
    roundTrips: usual("round-trips", values["round-trips"], { full: 3000, quick: 300 }),
    warmMs: usual("warm-ms", values["warm-ms"], { full: 3000, quick: 0, least: 0 }),
    rowMs: parseCount("row-seconds", values["row-seconds"], 1) * 1000,
    seed: parseCount("seed", values.seed, 0),
    quick,
    json: values.json,
  };
}

function parseRows(list: string | undefined): readonly ClusterRowId[] {
  if (list === undefined) return CLUSTER_ROW_IDS;
  const wanted = new Set(
    list.split(",").map((name) => {
      const id = CLUSTER_ROW_IDS.find((id) => id === name);
      if (id === undefined) {
        throw new TypeError(`Cannot run row "${name}": wanted one of ${CLUSTER_ROW_IDS.join(", ")}`);
      }
      return id;
    }),
  );
  return CLUSTER_ROW_IDS.filter((id) => wanted.has(id));
}

function parseCount(name: string, text: string, least: number): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < least || text.trim() === "") {
    throw new TypeError(`Cannot use --${name} ${text}: wanted a whole number of at least ${least}`);
  }
  return value;
}
