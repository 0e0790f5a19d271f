/**
 * Causal prefill attention over the paged pool, beside a large matrix product and cuDNN.
 *
 * @module
 */
import type { Part, PartContext, PartResult } from "./part.ts";
import { runProgram } from "./part.ts";
import type { GpuRow } from "./row.ts";

const PROGRAM = "kernels/attend_partial/attend_prefill_cuda_bench.ts";

/** A row as the program writes it. */
export interface PrefillMeasurement {
  /** `HEADS/KV_HEADS x HEAD_DIM, TOKENS tokens`, and what else sets it apart. */
  readonly name: string;
  /** Kernel. */
  readonly variant: string;
  /** Rate. */
  readonly tflops: number;
  /** As a share of a large matrix product's rate. */
  readonly share: number;
  /** Rate of cuDNN, where it ran. */
  readonly peerTflops?: number;
}

/** What the program writes. */
interface PrefillRecord {
  readonly productTflops: number;
  readonly rows: readonly PrefillMeasurement[];
}

/** Shapes of which something is asked. */
const ASKED = /^32\/(8|32) x 128, \d+ tokens$/;

/** Rows of the table, the fastest kernel of each shape. */
export function prefillRows(measured: readonly PrefillMeasurement[]): GpuRow[] {
  const fastest = measured.filter((row) =>
    measured.every((other) => other.name !== row.name || other.tflops <= row.tflops)
  );
  return fastest.map(({ name, variant, tflops, share, peerTflops }): GpuRow => ({
    part: "prefill",
    title: `prefill attention, ${name}, ${variant}`,
    unit: "TFLOP/s",
    value: tflops,
    peers: peerTflops === undefined ? {} : { cuDNN: peerTflops },
    comparisons: [
      {
        basis: "cuDNN",
        ratio: peerTflops === undefined ? undefined : tflops / peerTflops,
        ...ASKED.test(name) ? { atLeast: 0.65, aim: 1 } : {},
      },
      { basis: "matrix product", ratio: share },
    ],
  }));
}

async function run({ quick, log }: PartContext): Promise<PartResult> {
  const { productTflops, rows } = await runProgram<PrefillRecord>(PROGRAM, { args: quick ? ["--quick"] : [], log });
  const alone = rows.every(({ peerTflops }) => peerTflops === undefined);
  return {
    rows: prefillRows(rows),
    ceilings: { "matrix product, FLOP/s": productTflops * 1e12 },
    notes: alone ? ["cuDNN beside prefill attention: PyTorch did not run"] : [],
  };
}

/** Prefill attention. */
export const PREFILL_PART: Part = { id: "prefill", run };
