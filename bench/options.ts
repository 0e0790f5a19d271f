/**
 * The command line of the benchmark.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { DEFAULT_MODEL } from "../runtime/hub/known_models.ts";
import { type Row, type RowId, ROWS } from "./rows.ts";

/** Names that `--peers` takes; a path makes the last two available. */
export const PEER_NAMES = ["node-llama-cpp", "wllama", "llama-bench", "llama-server"] as const;

/** One of {@linkcode PEER_NAMES}. */
export type PeerName = typeof PEER_NAMES[number];

/** What was asked for. */
export interface BenchOptions {
  /** Path of a GGUF file, or a name as `serve --model` takes it. */
  readonly model: string;
  /** Rows to run. */
  readonly rows: readonly Row[];
  /** Peers to run; one that cannot be had is left out with a note. */
  readonly peers: readonly PeerName[];
  /** Path of llama-bench. */
  readonly llamaBench?: string;
  /** Path of llama-server. */
  readonly llamaServer?: string;
  /** Turns of each row. */
  readonly repeats: number;
  /** Compute threads of everybody. */
  readonly threads: number;
  /** Whether our compute threads are pinned to processors. */
  readonly pin: boolean;
  /** Time each of our rows is run before its first sample, ms. */
  readonly warmMs: number;
  /** Seed of the fresh prompts. */
  readonly seed: number;
  /** Where the JSON goes. By default a dated file under `bench/out`. */
  readonly json?: string;
}

/** Text of `--help`. */
export const USAGE = `Usage: deno task bench [options]

  --model MODEL         a .gguf file or a name as serve takes it (default INFINITE_LLM_MODEL or ${DEFAULT_MODEL})
  --only ROW,...        rows to run: ${ROWS.map(({ id }) => id).join(", ")}
  --peers LIST          none, auto, or a list of: ${PEER_NAMES.join(", ")} (default auto: all that can be had)
  --llama-bench PATH    program to measure beside
  --llama-server PATH   program to measure beside
  --repeats N           turns of each row (default 5)
  --threads N           compute threads (default 2)
  --pin                 give each of our compute threads a processor of its own
  --warm-ms N           how long each of our rows runs before its first sample (default 3000)
  --seed N              seed of the fresh prompts (default 1)
  --json FILE           where the result goes (default bench/out/DATE.json)
`;

/**
 * Reads the command line; undefined when it asks for help.
 *
 * @throws {TypeError} when an option is unknown or its value is out of range.
 */
export function parseOptions(args: readonly string[], env: { readonly model?: string } = {}): BenchOptions | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      "help": { type: "boolean", short: "h" },
      "model": { type: "string" },
      "only": { type: "string" },
      "peers": { type: "string", default: "auto" },
      "llama-bench": { type: "string" },
      "llama-server": { type: "string" },
      "repeats": { type: "string", default: "5" },
      "threads": { type: "string", default: "2" },
      "pin": { type: "boolean", default: false },
      "warm-ms": { type: "string", default: "3000" },
      "seed": { type: "string", default: "1" },
      "json": { type: "string" },
    },
  });
  if (values.help) return undefined;
  const paths = { llamaBench: values["llama-bench"], llamaServer: values["llama-server"] };
  return {
    model: values.model ?? env.model ?? DEFAULT_MODEL,
    rows: parseRows(values.only),
    peers: parsePeers(values.peers, paths),
    ...paths,
    repeats: parseCount("repeats", values.repeats, 1),
    threads: parseCount("threads", values.threads, 1),
    pin: values.pin,
    warmMs: parseCount("warm-ms", values["warm-ms"], 0),
    seed: parseCount("seed", values.seed, 0),
    json: values.json,
  };
}

function parseRows(only: string | undefined): readonly Row[] {
  if (only === undefined) return ROWS;
  const ids = ROWS.map(({ id }) => id);
  const wanted = new Set<RowId>(
    only.split(",").map((name) => {
      const id = ids.find((id) => id === name);
      if (id === undefined) throw new TypeError(`Cannot run row "${name}": wanted one of ${ids.join(", ")}`);
      return id;
    }),
  );
  return ROWS.filter(({ id }) => wanted.has(id));
}

function parsePeers(list: string, paths: { llamaBench?: string; llamaServer?: string }): readonly PeerName[] {
  if (list === "none") return [];
  const given: Readonly<Record<PeerName, boolean>> = {
    "node-llama-cpp": true,
    "wllama": true,
    "llama-bench": paths.llamaBench !== undefined,
    "llama-server": paths.llamaServer !== undefined,
  };
  if (list === "auto") return PEER_NAMES.filter((name) => given[name]);
  return list.split(",").map((name) => {
    const peer = PEER_NAMES.find((peer) => peer === name);
    if (peer === undefined) {
      throw new TypeError(`Cannot run peer "${name}": wanted none, auto or some of ${PEER_NAMES.join(", ")}`);
    }
    if (!given[peer]) throw new TypeError(`Cannot run ${peer}: wanted its path in --${peer} PATH, got none`);
    return peer;
  });
}

function parseCount(name: string, text: string, least: number): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < least || text.trim() === "") {
    throw new TypeError(`Cannot use --${name} ${text}: wanted a whole number of at least ${least}`);
  }
  return value;
}
