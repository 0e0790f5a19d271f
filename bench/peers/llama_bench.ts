/**
 * llama-bench, llama.cpp's own benchmark: a process a sample, which warms up by itself.
 *
 * @module
 */
import type { Contestant } from "../contestant.ts";
import { DECODED_TOKENS, type RowId } from "../rows.ts";
import type { PeerOptions } from "./peer_options.ts";

/** What we read of one entry of `llama-bench -o json`. */
interface BenchEntry {
  readonly avg_ts: number;
  readonly build_commit: string;
}

/** Arguments of a row: tokens of prompt, generated tokens, tokens of context before them. */
export function benchArguments(row: RowId): readonly string[] {
  const values = (prompt: number, generated: number, depth: number) => //
  ["-p", `${prompt}`, "-n", `${generated}`, "-d", `${depth}`];
  switch (row) {
    case "decode-128":
      return values(0, DECODED_TOKENS, 128);
    case "decode-2000":
      return values(0, DECODED_TOKENS, 2000);
    case "prefill-512":
      return values(512, 0, 0);
    case "prefill-2000":
      return values(2000, 0, 0);
    default:
      throw new RangeError(`Cannot sample row ${row}: llama-bench has no figure for it`);
  }
}

/** Measures the program at `path`. @throws {Error} when it cannot be run. */
export async function openLlamaBench(path: string, options: PeerOptions): Promise<Contestant> {
  const run = async (args: readonly string[]): Promise<BenchEntry> => {
    const { code, stdout, stderr } = await new Deno.Command(path, {
      args: ["-m", options.modelPath, "-t", String(options.threads), "-r", "1", "-o", "json", ...args],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).output();
    if (code !== 0) {
      const reason = new TextDecoder().decode(stderr).trim().split("\n").at(-1);
      throw new Error(`Cannot measure llama-bench: it ended with code ${code}: ${reason}`);
    }
    const [entry]: BenchEntry[] = JSON.parse(new TextDecoder().decode(stdout));
    return entry;
  };
  const { build_commit } = await run(["-p", "8", "-n", "0"]);
  return {
    name: "llama-bench",
    version: `llama.cpp ${build_commit}, ${options.threads} threads, f16 KV`,
    rows: ["decode-128", "decode-2000", "prefill-512", "prefill-2000"],
    warm: () => Promise.resolve(),
    sample: async (row) => (await run(benchArguments(row))).avg_ts,
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
