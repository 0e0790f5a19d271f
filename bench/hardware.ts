/**
 * What a benchmark ran on.
 *
 * @module
 */
import { loadavg } from "node:os";

/** The machine. */
export interface Hardware {
  /** Model name of the processor. */
  readonly cpu: string;
  /** Logical CPUs. */
  readonly cores: number;
  /** Vector features that decide about speed, as Linux names them; empty where they cannot be read. */
  readonly features: readonly string[];
  /** Memory, bytes. */
  readonly memoryBytes: number;
  /** Operating system and architecture. */
  readonly os: string;
  /** Deno and V8. */
  readonly runtime: string;
}

const FEATURES = [
  "avx2",
  "fma",
  "f16c",
  "avx_vnni",
  "avx512f",
  "avx512bw",
  "avx512_vnni",
  "avx512_bf16",
  "amx_int8",
  "asimd",
  "asimddp",
  "i8mm",
];

/** Processor name and features in the text of `/proc/cpuinfo`. */
export function parseCpuInfo(text: string): { cpu: string; features: string[] } {
  const field = (name: string) => new RegExp(`^${name}\\s*:\\s*(.+)$`, "m").exec(text)?.[1].trim();
  const flags = new Set((field("flags") ?? field("Features") ?? "").split(" "));
  return { cpu: field("model name") ?? "unknown", features: FEATURES.filter((feature) => flags.has(feature)) };
}

/** Describes this machine. */
export function readHardware(): Hardware {
  const { os, arch } = Deno.build;
  return {
    ...parseCpuInfo(os === "linux" ? Deno.readTextFileSync("/proc/cpuinfo") : ""),
    cores: navigator.hardwareConcurrency,
    memoryBytes: Deno.systemMemoryInfo().total,
    os: `${os} ${Deno.osRelease()} ${arch}`,
    runtime: `Deno ${Deno.version.deno}, V8 ${Deno.version.v8}`,
  };
}

/** Load average over one, five and fifteen minutes. */
export function readLoad(): number[] {
  return loadavg().map((value) => Math.round(value * 100) / 100);
}

/** Commit of the repository, with `-dirty` where tracked files differ from it; `unknown` without git. */
export async function readCommit(): Promise<string> {
  const git = async (...args: string[]): Promise<string> => {
    const folder = new URL("..", import.meta.url);
    const { code, stdout } = await new Deno.Command("git", { args, cwd: folder, stderr: "null" }).output();
    if (code !== 0) throw new Error(`Cannot run git ${args[0]}: it ended with code ${code}`);
    return new TextDecoder().decode(stdout).trim();
  };
  try {
    const commit = await git("rev-parse", "--short=12", "HEAD");
    return await git("status", "--porcelain", "--untracked-files=no") === "" ? commit : `${commit}-dirty`;
  } catch {
    return "unknown";
  }
}
