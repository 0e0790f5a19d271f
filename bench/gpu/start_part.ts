/**
 * The time to start, with kernels to compile and without.
 *
 * @module
 */
import type { Part, PartContext, PartResult } from "./part.ts";
import { runProgram } from "./part.ts";
import type { GpuRow } from "./row.ts";
import type { StartRow } from "./start_bench.ts";

const PROGRAM = "bench/gpu/start_bench.ts";
/** The shape that is measured: the weights of a larger one would be what is timed. */
const MODEL = "smollm2-135m";
/** Seconds that a start may and should take. */
const FIRST_SECONDS = { atLeast: 60, aim: 20 } as const;
const LATER_SECONDS = { atLeast: 2, aim: 1 } as const;

/** Rows of the table. */
export function startRows(measured: readonly StartRow[]): GpuRow[] {
  return measured.map(({ model, first, seconds }) => {
    const { atLeast, aim } = first ? FIRST_SECONDS : LATER_SECONDS;
    return {
      part: "start",
      title: `${model}, process to first token, ${first ? "every kernel compiled" : "kernels from disk"}`,
      unit: "s",
      value: seconds,
      peers: {},
      comparisons: [{ basis: `${atLeast} s`, ratio: atLeast / seconds, atLeast: 1, aim: atLeast / aim }],
    };
  });
}

async function run({ log }: PartContext): Promise<PartResult> {
  const { rows } = await runProgram<{ rows: StartRow[] }>(PROGRAM, { args: ["--model", MODEL], log });
  return { rows: startRows(rows) };
}

/** Starting. */
export const START_PART: Part = { id: "start", run };
