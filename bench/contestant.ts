/**
 * Somebody who takes part in a benchmark: our engine, our server or a peer.
 *
 * @module
 */
import type { RowId } from "./rows.ts";

/** Measures rows. Everything it started ends with it. */
export interface Contestant extends AsyncDisposable {
  /** Column of its figures. */
  readonly name: string;
  /** Version and settings, one line. */
  readonly version: string;
  /** Rows it has a figure for. */
  readonly rows: readonly RowId[];
  /** Most samples of a row, for contestants too slow for more. @default {no limit} */
  readonly maxSamples?: number;
  /** Gets ready for a row: code compiled by the optimising tier, caches and pages touched. */
  warm(row: RowId): Promise<void>;
  /** One sample in the unit of the row. `turn` counts the samples of the row from 0. */
  sample(row: RowId, turn: number): Promise<number>;
}

/** Column of our own figures. */
export const OURS = "ours";

/** Column of the bare HTTP server. */
export const BARE_SERVER = "bare node:http";

/** Takes discarded samples until `warmMs` have passed, at least one. */
export async function warmBySampling(
  contestant: Pick<Contestant, "sample">,
  row: RowId,
  { warmMs }: { warmMs: number },
): Promise<void> {
  const end = performance.now() + warmMs;
  // Turns below 0 keep the prompts of warm-up and samples apart.
  for (let turn = -1; turn === -1 || performance.now() < end; turn--) await contestant.sample(row, turn);
}
