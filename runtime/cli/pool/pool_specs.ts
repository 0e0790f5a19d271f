/**
 * The command lines of a pool's children.
 *
 * @module
 */
import { FLAG_SPECS, type FlagKey, flagName, flagsOf, type Settings } from "../flags.ts";
import type { ChildSpec } from "./pool_child.ts";

/** Flags of the first instance alone: it has the public address, and others may join it from elsewhere. */
const PUBLIC_FLAGS: ReadonlySet<FlagKey> = new Set<FlagKey>([
  "host",
  "port",
  "allowInsecureBind",
  "tlsCert",
  "tlsKey",
  "corsOrigin",
  "clusterListen",
  "advertise",
]);

/** Flags that a holder has no use for. */
const MODEL_FLAGS: ReadonlySet<FlagKey> = new Set<FlagKey>([
  "model",
  "kvTokens",
  "kvMemory",
  "maxModelLen",
  "maxBatch",
  "chatTemplate",
  "servedModelName",
  "scheduler",
  "schedulerOpt",
]);

/** Flags whose values this program has used up, or that children get others of. */
const OWN_FLAGS: ReadonlySet<FlagKey> = new Set<FlagKey>([
  "config",
  "threads",
  "gpuMemoryUtilization",
  "join",
  "name",
  "role",
  "announce",
]);

/** The first instance, which starts the cluster. */
export function firstSpec(settings: Settings): ChildSpec {
  return fullSpec(settings, { index: 1, own: [`--cluster-listen=${settings.clusterListen ?? "127.0.0.1:0"}`] });
}

/** The other instances and the holders, which join it at `clusterUrl`. */
export function otherSpecs(settings: Settings, clusterUrl: string): ChildSpec[] {
  const { instances = 1, holders } = settings;
  const own = [`--join=${clusterUrl}`, "--port=0"];
  return [
    ...Array.from({ length: instances - 1 }, (_, at) => fullSpec(settings, { index: at + 2, own })),
    ...Array.from({ length: holders }, (_, at) => holderSpec(settings, { index: at + 1, own })),
  ];
}

interface SpecParts {
  /** Number in its name. */
  readonly index: number;
  /** Flags of this child. */
  readonly own: readonly string[];
}

function fullSpec(settings: Settings, { index, own }: SpecParts): ChildSpec {
  const name = `instance-${index}`;
  const skipped = (key: FlagKey) => OWN_FLAGS.has(key) || (index > 1 ? PUBLIC_FLAGS.has(key) : key === "clusterListen");
  return { name, role: "full", args: serveArgs(settings, { name, own, skipped }) };
}

function holderSpec(settings: Settings, { index, own }: SpecParts): ChildSpec {
  const name = `holder-${index}`;
  const skipped = (key: FlagKey) => OWN_FLAGS.has(key) || PUBLIC_FLAGS.has(key) || MODEL_FLAGS.has(key);
  const bytes = settings.holderMemory ?? settings.kvMemory;
  const memory = bytes === undefined ? [] : [`--kv-memory=${bytes}`];
  return {
    name,
    role: "holder",
    args: serveArgs(settings, { name, own: ["--role=holder", ...memory, ...own], skipped }),
  };
}

function serveArgs(
  settings: Settings,
  { name, own, skipped }: {
    readonly name: string;
    readonly own: readonly string[];
    readonly skipped: (key: FlagKey) => boolean;
  },
): string[] {
  const given = flagsOf("serve").filter((key) => !skipped(key)).flatMap((key) => flagArgs(key, settings[key]));
  const shares = [`--threads=${threadsOf(settings)}`, `--gpu-memory-utilization=${gpuShareOf(settings)}`];
  return ["serve", ...given, ...shares, `--name=${name}`, ...own, "--announce"];
}

/** Threads of one child: more of them than processors in all would only wait for each other. */
function threadsOf({ threads, instances = 1, holders }: Settings): number {
  return threads ?? Math.max(1, Math.floor(navigator.hardwareConcurrency / (instances + holders)));
}

/** Share of a GPU's memory that one child may use: all of them use the same GPU, and start at the same time. */
function gpuShareOf({ gpuMemoryUtilization, device, instances = 1, holders }: Settings): number {
  const sharers = instances + (device.startsWith("cuda") ? holders : 0);
  // Rounded down, so that all together stay below the whole.
  return Math.max(0.01, Math.floor(gpuMemoryUtilization * 1000 / sharers) / 1000);
}

/** A value as it would stand on a command line, where it goes before environment and files. */
function flagArgs(key: FlagKey, value: unknown): string[] {
  const flag = `--${flagName(key)}`;
  if (value === undefined) return [];
  switch (FLAG_SPECS.get(key)?.kind) {
    case "list":
      return Array.isArray(value) ? value.map((item) => `${flag}=${item}`) : [];
    case "pairs":
      return Object.entries(Object(value)).map(([name, item]) => `${flag}=${name}=${JSON.stringify(item)}`);
    case "switch":
      return [value === true ? flag : `${flag}=false`];
    default:
      return [`${flag}=${value}`];
  }
}
