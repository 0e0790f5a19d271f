/**
 * Every flag: its type, default, environment variable and help. Parsing, help texts, the environment, configuration files
 * and `docs/cli.md` are made of this table.
 *
 * @module
 */
import { CACHE_VARIABLE } from "../hub/cache_directory.ts";
import { DEFAULT_MODEL } from "../hub/known_models.ts";
import { CLUSTER_FLAGS, OPERATOR_COMMANDS } from "./cluster_flags.ts";
import { COMMAND_SPECS, type CommandName } from "./commands.ts";

/** What every flag has. */
export interface FlagBase {
  /** What it does, a sentence without a full stop. */
  readonly help: string;
  /** Commands that take it. */
  readonly commands: readonly CommandName[];
  /** What stands for the value in help texts. */
  readonly value?: string;
  /** Environment variable, where it is not `INFINITE_LLM_` and the flag's name. */
  readonly env?: string;
  /** What happens without it, where no fixed default says so. */
  readonly otherwise?: string;
}

/** One flag. */
export type FlagSpec =
  | FlagBase & { readonly kind: "text" | "path"; readonly default?: string }
  | FlagBase & {
    readonly kind: "integer" | "number";
    readonly min: number;
    readonly max: number;
    readonly default?: number;
  }
  | FlagBase & { readonly kind: "bytes"; readonly default?: number }
  | FlagBase & { readonly kind: "switch"; readonly default: false }
  | FlagBase & {
    readonly kind: "choice";
    readonly choices: readonly string[];
    /** The choice that may be followed by a colon and a number. */
    readonly numbered?: string;
    readonly default?: string;
  }
  | FlagBase & { readonly kind: "list"; readonly default: readonly string[] }
  | FlagBase & { readonly kind: "pairs"; readonly default: Readonly<Record<string, unknown>> };

const SERVE_COMMANDS = ["serve", "cluster"] as const satisfies readonly CommandName[];
const MODEL_COMMANDS = ["serve", "run", "cluster"] as const satisfies readonly CommandName[];
const CACHE_COMMANDS = [
  "serve",
  "run",
  "cluster",
  "pull",
  "list",
  "remove",
  "doctor",
] as const satisfies readonly CommandName[];
const EVERY_COMMAND: readonly CommandName[] = [...COMMAND_SPECS.keys()].filter((name) => name !== "bench");

/** The table. */
export const FLAGS = {
  model: {
    kind: "text",
    value: "MODEL",
    default: DEFAULT_MODEL,
    help: "A .gguf file, a model directory, hf:org/repo[:file] or a known name",
    commands: MODEL_COMMANDS,
  },
  host: {
    kind: "text",
    value: "ADDRESS",
    default: "127.0.0.1",
    help: "Address to listen on; one that other machines reach needs --api-key-file",
    commands: SERVE_COMMANDS,
  },
  port: {
    kind: "integer",
    value: "N",
    min: 0,
    max: 65535,
    default: 8080,
    help: "Port to listen on; 0 takes any free one",
    commands: SERVE_COMMANDS,
  },
  device: {
    kind: "choice",
    choices: ["auto", "cuda", "wasm"],
    numbered: "cuda",
    default: "auto",
    help: "What computes: a GPU, by its number where there are several, or the processors; auto takes the first GPU " +
      "where it can be used, and says why where it cannot; a holder's auto is the processors",
    commands: MODEL_COMMANDS,
  },
  activations: {
    kind: "choice",
    choices: ["i8", "f32"],
    default: "i8",
    help: "Inputs of quantised matrix products without a GPU: 8-bit integers are fast, f32 is exact",
    commands: MODEL_COMMANDS,
  },
  kvType: {
    kind: "choice",
    choices: ["f32", "f16", "bf16", "fp8"],
    otherwise: "bf16 on a GPU; else f16, or f32 with --activations f32",
    help: "Element type of the KV cache; fp8, which GPUs alone have, holds twice the tokens of bf16",
    commands: MODEL_COMMANDS,
  },
  threads: {
    kind: "integer",
    value: "N",
    min: 1,
    max: 256,
    otherwise: "one for each processor, at most 16; cluster shares them out",
    help: "Compute threads",
    commands: MODEL_COMMANDS,
  },
  pin: {
    kind: "switch",
    default: false,
    help: "Give each compute thread a processor of its own, where the system allows it",
    commands: MODEL_COMMANDS,
  },
  kvMemory: {
    kind: "bytes",
    value: "SIZE",
    otherwise: "512MiB, or less where eight full contexts need less; on a GPU see --gpu-memory-utilization",
    help: "Size of the KV cache, for example 512MiB",
    commands: MODEL_COMMANDS,
  },
  gpuMemoryUtilization: {
    kind: "number",
    value: "SHARE",
    min: 0.01,
    max: 1,
    default: 0.9,
    help:
      "Share of a GPU's memory that this process may use; what weights leave of it is KV cache, unless its size is " +
      "given; cluster shares it out",
    commands: MODEL_COMMANDS,
  },
  weights: {
    kind: "choice",
    choices: ["auto", "packed", "bf16", "both"],
    default: "bf16",
    help:
      "On a GPU, how weights are kept that the file has as Q8_0, Q4_0 or Q4_1: packed leaves most memory to the KV " +
      "cache, bf16 expands them, both does both; auto is both where copies take at most a quarter of the memory",
    commands: MODEL_COMMANDS,
  },
  deterministic: {
    kind: "switch",
    default: false,
    help: "On a GPU, give an answer the same bits whatever else runs beside it; slower",
    commands: MODEL_COMMANDS,
  },
  kvTokens: {
    kind: "integer",
    value: "N",
    min: 1,
    max: 1e9,
    help: "Size of the KV cache in tokens, instead of --kv-memory",
    commands: MODEL_COMMANDS,
  },
  maxModelLen: {
    kind: "integer",
    value: "N",
    min: 1,
    max: 1e9,
    otherwise: "the model's context; without a cluster the KV cache, where that is smaller",
    help: "Longest prompt plus output, tokens",
    commands: MODEL_COMMANDS,
  },
  maxBatch: {
    kind: "integer",
    value: "N",
    min: 1,
    max: 4096,
    otherwise: "32, on a GPU 256, or less where the device allows less",
    help: "Most sequences that run at the same time",
    commands: SERVE_COMMANDS,
  },
  scheduler: {
    kind: "text",
    value: "POLICY",
    default: "builtin:fcfs",
    help: "Scheduler policy: builtin:fcfs, builtin:priority, a file or a URL",
    commands: SERVE_COMMANDS,
  },
  schedulerOpt: {
    kind: "pairs",
    value: "KEY=VALUE",
    default: {},
    help: "Option of the scheduler policy; values are JSON or else text",
    commands: ["serve", "cluster", "plugin check"],
  },
  servedModelName: {
    kind: "list",
    value: "NAME",
    default: [],
    otherwise: "the model's own name",
    help: "Name under which the model is served",
    commands: SERVE_COMMANDS,
  },
  chatTemplate: {
    kind: "path",
    value: "FILE",
    otherwise: "the model's own template",
    help: "Jinja file with the chat template",
    commands: MODEL_COMMANDS,
  },
  apiKeyFile: {
    kind: "path",
    value: "FILE",
    help: "File with the keys that may ask, one a line, as they are or as sha256: and 64 hexadecimal digits",
    commands: ["serve", ...OPERATOR_COMMANDS],
  },
  allowInsecureBind: {
    kind: "switch",
    default: false,
    help: "DANGEROUS: listen on an address that other machines reach without asking for a key",
    commands: SERVE_COMMANDS,
  },
  tlsCert: {
    kind: "path",
    value: "FILE",
    help: "Certificate chain (PEM) for HTTPS, together with --tls-key",
    commands: SERVE_COMMANDS,
  },
  tlsKey: {
    kind: "path",
    value: "FILE",
    help: "Private key (PEM) for HTTPS, together with --tls-cert",
    commands: SERVE_COMMANDS,
  },
  corsOrigin: {
    kind: "list",
    value: "ORIGIN",
    default: [],
    otherwise: "none",
    help: "Browser origin that may read answers; * allows all",
    commands: SERVE_COMMANDS,
  },
  shutdownTimeout: {
    kind: "number",
    value: "SECONDS",
    min: 0,
    max: 86_400,
    default: 30,
    help: "How long running requests may go on after the first SIGTERM or Ctrl-C; a second one ends at once",
    commands: SERVE_COMMANDS,
  },
  logLevel: {
    kind: "choice",
    choices: ["debug", "info", "warn", "error", "silent"],
    default: "info",
    help: "Least level that is logged",
    commands: ["serve", "cluster", "gmanager"],
  },
  logFormat: {
    kind: "choice",
    choices: ["pretty", "json"],
    default: "pretty",
    help: "How log lines look",
    commands: ["serve", "cluster", "gmanager"],
  },
  ...CLUSTER_FLAGS,
  system: {
    kind: "text",
    value: "TEXT",
    help: "System message of the chat",
    commands: ["run"],
  },
  maxTokens: {
    kind: "integer",
    value: "N",
    min: 1,
    max: 1e9,
    default: 1024,
    help: "Most tokens of an answer",
    commands: ["run"],
  },
  temperature: {
    kind: "number",
    value: "X",
    min: 0,
    max: 2,
    default: 0.2,
    help: "Randomness of the answers; 0 always takes the likeliest token",
    commands: ["run"],
  },
  seed: {
    kind: "integer",
    value: "N",
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    otherwise: "another one each time",
    help: "Seed of the random choices",
    commands: ["run"],
  },
  cacheDir: {
    kind: "path",
    value: "DIR",
    env: CACHE_VARIABLE,
    otherwise: "the platform's cache directory",
    help: "Where fetched models are kept",
    commands: CACHE_COMMANDS,
  },
  offline: {
    kind: "switch",
    default: false,
    help: "Fetch nothing; HF_HUB_OFFLINE=1 does the same",
    commands: ["serve", "run", "cluster", "pull"],
  },
  config: {
    kind: "path",
    value: "FILE",
    help: "JSON file with flags by their names; the command line and the environment go before it",
    commands: EVERY_COMMAND,
  },
  debug: {
    kind: "switch",
    default: false,
    help: "Show where an error comes from",
    commands: EVERY_COMMAND,
  },
} as const satisfies Readonly<Record<string, FlagSpec>>;

/** Key of a flag in {@linkcode FLAGS} and {@linkcode Settings}. */
export type FlagKey = keyof typeof FLAGS;

/** Type of a flag's value. */
export type ValueOf<F> = F extends { readonly kind: "text" | "path" } ? string
  : F extends { readonly kind: "integer" | "number" | "bytes" } ? number
  : F extends { readonly kind: "switch" } ? boolean
  : F extends
    { readonly kind: "choice"; readonly choices: readonly (infer C)[]; readonly numbered: infer N extends string }
    ? C | `${N}:${number}`
  : F extends { readonly kind: "choice"; readonly choices: readonly (infer C)[] } ? C
  : F extends { readonly kind: "list" } ? readonly string[]
  : Readonly<Record<string, unknown>>;

/** The values of all flags, defaults filled in. */
export type Settings = {
  readonly [K in FlagKey]: (typeof FLAGS)[K] extends { readonly default: unknown } ? ValueOf<(typeof FLAGS)[K]>
    : ValueOf<(typeof FLAGS)[K]> | undefined;
};

/** Flags by key, seen without their exact types. */
export const FLAG_SPECS: ReadonlyMap<FlagKey, FlagSpec> = new Map(
  Object.entries(FLAGS) as [FlagKey, FlagSpec][],
);

/** Name on the command line and in configuration files, without dashes in front: `kv-memory`. */
export function flagName(key: FlagKey): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** Environment variable of a flag: `INFINITE_LLM_KV_MEMORY`. */
export function flagVariable(key: FlagKey): string {
  return FLAG_SPECS.get(key)?.env ?? `INFINITE_LLM_${flagName(key).replaceAll("-", "_").toUpperCase()}`;
}

/** Flags that a command takes. */
export function flagsOf(command: CommandName): FlagKey[] {
  return [...FLAG_SPECS].filter(([, { commands }]) => commands.includes(command)).map(([key]) => key);
}
