/**
 * Requests over HTTP, all at once, beside vLLM's figures for the same load without HTTP.
 *
 * @module
 */
import type { Part, PartContext, PartResult } from "./part.ts";
import { runProgram } from "./part.ts";
import type { GpuRow } from "./row.ts";
import type { ServingRow } from "./serving_bench.ts";
import { VLLM } from "./vllm_figures.ts";

const PROGRAM = "bench/gpu/serving_bench.ts";
const MODELS = ["llama3-8b", "llama2-7b", "smollm2-135m"] as const;
const QUICK_MODELS = ["llama3-8b"] as const;
/** The load that vLLM's figure is of. */
const LOAD = { requests: 256, promptTokens: 1024, answerTokens: 256 } as const;

/** Rows of the table. */
export function servingRows(measured: readonly ServingRow[]): GpuRow[] {
  return measured.map(({ model, requests, promptTokens, answerTokens, stream, seconds, ownedBlocks }) => {
    const same = requests === LOAD.requests && promptTokens === LOAD.promptTokens && answerTokens === LOAD.answerTokens;
    const vllm = VLLM[model]?.servingSeconds;
    const goal = model === "smollm2-135m" ? {} : { atLeast: 0.8, aim: 1.1 };
    return {
      part: "serving",
      title: `${model}, ${requests} requests of ${promptTokens} in and ${answerTokens} out, ${
        stream ? "streamed" : "whole answers"
      }`,
      unit: "s",
      value: seconds,
      peers: {},
      comparisons: [
        ...same && vllm !== undefined ? [{ basis: "vLLM on an H200, no HTTP", ratio: vllm / seconds, ...goal }] : [],
        { basis: "all blocks given back", ratio: ownedBlocks === 0 ? 1 : 0, atLeast: 1 },
      ],
    };
  });
}

async function run({ quick, seed, log }: PartContext): Promise<PartResult> {
  const rows: ServingRow[] = [];
  const notes: string[] = [];
  for (const model of quick ? QUICK_MODELS : MODELS) {
    try {
      const args = ["--model", model, "--seed", String(seed)];
      rows.push(...(await runProgram<{ rows: ServingRow[] }>(PROGRAM, { args, log })).rows);
    } catch (error) {
      notes.push(`serving ${model}: ${error instanceof Error ? error.message : error}`);
    }
  }
  return { rows: servingRows(rows), notes };
}

/** Serving. */
export const SERVING_PART: Part = { id: "serving", run };
