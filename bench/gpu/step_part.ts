/**
 * Steps of the whole device, beside the roofline (weights and KV read once at the read ceiling) and vLLM's figures.
 *
 * @module
 */
import type { Part, PartContext, PartResult } from "./part.ts";
import { runProgram } from "./part.ts";
import type { Comparison, GpuRow } from "./row.ts";
import { VLLM, VLLM_READ_CEILING } from "./vllm_figures.ts";

const PROGRAM = "bench/gpu/step_bench.ts";
/** Shapes in the order they are run. */
const MODELS = ["smollm2-135m", "llama3-8b", "llama2-7b", "llama2-7b-q4_0"] as const;
/** The shape that is also run with FP8 KV. */
const FP8_MODEL = "llama3-8b";
/** Shapes whose steps are held to the roofline. */
const ROOFLINE_MODELS: readonly string[] = ["llama3-8b", "llama2-7b"];
/** Milliseconds that steps of some shapes may and should take. */
const STEP_MS: Readonly<Record<string, { readonly atLeast: number; readonly aim: number }>> = {
  "smollm2-135m 1 x 256": { atLeast: 0.8, aim: 0.25 },
  "smollm2-135m 64 x 256": { atLeast: 2.2, aim: 0.8 },
  "llama2-7b-q4_0 1 x 128": { atLeast: 2, aim: 1.2 },
};
/** Batches whose throughput is asked of. */
const THROUGHPUT: readonly string[] = ["32 x 1024", "128 x 1024"];

/** Shape that shows what deterministic steps cost. */
const DETERMINISTIC_MODEL = "llama3-8b";

/** A row as the program writes it. */
export interface StepMeasurement {
  /** Shape. */
  readonly model: string;
  /** `decode bBATCH at CONTEXT` or `prefill TOKENS`, maybe with more words behind. */
  readonly what: string;
  /** Milliseconds of a step. */
  readonly ms: number;
  /** Tokens a second. */
  readonly tokensPerSecond: number;
  /** Share of the roofline, for decoding. */
  readonly roofline?: number;
  /** Share of the time between two steps in which the GPU does nothing. */
  readonly idle?: number;
  /** Milliseconds of the same step of a device that is not deterministic. */
  readonly plainMs?: number;
}

/** What the program writes. */
interface StepRecord {
  readonly ceiling: number;
  readonly rows: readonly StepMeasurement[];
}

function decodeComparisons(
  { model, ms, roofline, idle }: StepMeasurement,
  { cell, ceiling }: { readonly cell: string; readonly ceiling: number },
): Comparison[] {
  const comparisons: Comparison[] = [];
  const vllmMs = VLLM[model]?.decodeMs[cell];
  const single = cell.startsWith("1 x ");
  if (roofline !== undefined) {
    const goal = single && ROOFLINE_MODELS.includes(model) ? { atLeast: 0.72, aim: 0.88 } : {};
    comparisons.push({ basis: "roofline", ratio: roofline, ...goal });
  }
  const goalMs = STEP_MS[`${model} ${cell}`];
  if (goalMs !== undefined) {
    comparisons.push({
      basis: `${goalMs.atLeast} ms`,
      ratio: goalMs.atLeast / ms,
      atLeast: 1,
      aim: goalMs.atLeast / goalMs.aim,
    });
  }
  if (vllmMs !== undefined && roofline !== undefined && ROOFLINE_MODELS.includes(model)) {
    // Both as shares of what their own chip allows, so that chips of other bandwidth can be compared.
    const bytes = roofline * ms / 1000 * ceiling;
    const vllmShare = bytes / VLLM_READ_CEILING / (vllmMs / 1000);
    const goal = single ? { atLeast: 1 } : THROUGHPUT.includes(cell) ? { atLeast: 0.95, aim: 1.2 } : {};
    comparisons.push({ basis: "vLLM on an H200, shares of the roofline", ratio: roofline / vllmShare, ...goal });
  } else if (vllmMs !== undefined) {
    comparisons.push({ basis: "vLLM on an H200", ratio: vllmMs / ms });
  }
  if (idle !== undefined && (cell.startsWith("1 x ") || cell.startsWith("64 x "))) {
    comparisons.push({ basis: "busy between steps", ratio: 1 - idle, atLeast: 0.95, aim: 0.99 });
  }
  return comparisons;
}

/** Rows of the table. `ceiling` in bytes a second. */
export function stepRows(measured: readonly StepMeasurement[], ceiling: number): GpuRow[] {
  return measured.map((row): GpuRow => {
    const { model, what, ms, tokensPerSecond, plainMs } = row;
    const title = `${model}, ${what}`;
    if (plainMs !== undefined) {
      const comparisons = [{ basis: "the same without --deterministic", ratio: plainMs / ms }];
      return { part: "steps", title, unit: "ms", value: ms, peers: {}, comparisons };
    }
    const decode = /^decode b(\d+) at (\d+)(.*)$/.exec(what);
    if (decode !== null) {
      const [, batch, context, rest] = decode;
      // What has more words behind is a variant that is shown beside.
      const comparisons = rest === ""
        ? decodeComparisons(row, { cell: `${batch} x ${context}`, ceiling })
        : [{ basis: "roofline", ratio: row.roofline }];
      return { part: "steps", title, unit: "ms", value: ms, peers: {}, comparisons };
    }
    const prompt = Number(/^prefill (\d+)$/.exec(what)?.[1]);
    const vllm = VLLM[model]?.prefill[prompt];
    const goal = ROOFLINE_MODELS.includes(model) ? { atLeast: 0.7, aim: 1.05 } : {};
    const comparisons = vllm === undefined
      ? []
      : [{ basis: "vLLM on an H200", ratio: tokensPerSecond / vllm, ...goal }];
    return { part: "steps", title, unit: "tokens/s", value: tokensPerSecond, peers: {}, comparisons };
  });
}

async function run({ quick, log }: PartContext): Promise<PartResult> {
  const rows: GpuRow[] = [];
  const notes: string[] = [];
  const ceilings: number[] = [];
  const runs = MODELS.map((model) => ["--model", model]);
  const variants = [["--model", FP8_MODEL, "--kv-type", "fp8"], ["--model", DETERMINISTIC_MODEL, "--deterministic"]];
  for (const run of [...runs, ...variants]) {
    try {
      const record = await runProgram<StepRecord>(PROGRAM, { args: [...run, ...quick ? ["--quick"] : []], log });
      rows.push(...stepRows(record.rows, record.ceiling));
      ceilings.push(record.ceiling);
    } catch (error) {
      notes.push(`steps of ${run.slice(1).join(" ")}: ${error instanceof Error ? error.message : error}`);
    }
  }
  if (ceilings.length === 0) throw new Error(`Cannot measure steps: ${notes.join("; ")}`);
  return { rows, notes, ceilings: { "read beside steps, bytes/s": Math.max(...ceilings) } };
}

/** Steps of the device. */
export const STEP_PART: Part = { id: "steps", run };
