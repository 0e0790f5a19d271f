/**
 * Attention of cuDNN and products of cuBLAS, measured through PyTorch where there is one.
 *
 * @module
 */
import { fileURLToPath } from "node:url";

/** What to measure: decode attention HEADS,KV_HEADS,HEAD_DIM,BATCH,TOKENS, or a product mm,TOKENS,ROWS,COLUMNS. */
export type TorchJob = `${number},${number},${number},${number},${number}` | `mm,${number},${number},${number}`;

/** What PyTorch measured. */
export interface TorchFigures {
  /** Versions of PyTorch and cuDNN; undefined where there is none. */
  readonly version: string | undefined;
  /** Microseconds by job; those that it could not run are missing. */
  readonly us: ReadonlyMap<TorchJob, number>;
}

/** Figures from the lines that the script prints. */
export function parseTorchLines(text: string, jobs: readonly TorchJob[]): TorchFigures {
  const [version, ...lines] = text.trim().split("\n");
  const us = new Map<TorchJob, number>();
  for (const [i, job] of jobs.entries()) {
    const value = Number(lines[i]);
    if (lines[i] !== undefined && Number.isFinite(value)) us.set(job, value);
  }
  return { version: version === "" ? undefined : version, us };
}

/** Runs the jobs; nothing is measured where `python3` or PyTorch is missing. */
export async function measureTorch(jobs: readonly TorchJob[]): Promise<TorchFigures> {
  const script = fileURLToPath(new URL("./torch_peer.py", import.meta.url));
  try {
    const { stdout } = await new Deno.Command("python3", { args: [script, ...jobs], stderr: "null" }).output();
    return parseTorchLines(new TextDecoder().decode(stdout), jobs);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return { version: undefined, us: new Map() };
    throw error;
  }
}
