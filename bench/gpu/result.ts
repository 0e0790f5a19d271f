/**
 * The result of a GPU benchmark, as its JSON file holds it.
 *
 * @module
 */
import type { GpuHardware, GpuState } from "./gpu_hardware.ts";
import { type GpuRow, type GpuVerdict, judgeRow } from "./row.ts";

/** Version of the file format. */
export const GPU_RESULT_VERSION = 1;

/** A row and how it did. */
export interface JudgedRow extends GpuRow {
  /** How it did. */
  readonly verdict: GpuVerdict;
}

/** A benchmark run. */
export interface GpuBenchResult {
  /** See {@linkcode GPU_RESULT_VERSION}. */
  readonly version: number;
  /** Start of the run, ISO 8601. */
  readonly date: string;
  /** Commit measured. */
  readonly commit: string;
  /** GPU and machine before the run. */
  readonly hardware: GpuHardware;
  /** Clocks after the run. */
  readonly stateAfter: GpuState | undefined;
  /** Seed of prompts and weights. */
  readonly seed: number;
  /** Version of PyTorch and cuDNN, if they ran beside. */
  readonly torch: string | undefined;
  /** Ceilings of this run: bytes or floating-point operations a second, by name. */
  readonly ceilings: Readonly<Record<string, number>>;
  /** Rows in order. */
  readonly rows: readonly JudgedRow[];
  /** What was left out and why, one line each. */
  readonly notes: readonly string[];
}

/** Rows with their verdicts. */
export function judgeRows(rows: readonly GpuRow[]): JudgedRow[] {
  return rows.map((row) => ({ ...row, verdict: judgeRow(row) }));
}

/** Reads a result. @throws {TypeError} when the text is not one of this version. */
export function parseGpuResult(text: string): GpuBenchResult {
  const result: GpuBenchResult = JSON.parse(text);
  if (result?.version !== GPU_RESULT_VERSION) {
    throw new TypeError(
      `Cannot read GPU benchmark result: wanted version ${GPU_RESULT_VERSION}, got ${result?.version}`,
    );
  }
  return result;
}
