/**
 * The GPU benchmark: kernels, steps, serving and starting on one GPU, beside the ceilings and peers of the same run.
 *
 *     deno task bench:gpu [--only PART,...] [--quick] [--json FILE]
 *
 * Prints a table with verdicts and writes JSON. Where there is no GPU it says why, counts every part as skipped and ends with 0.
 *
 * @module
 */
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { TestGpu } from "../../kernels/cuda/test_gpu.ts";
import { readCommit } from "../hardware.ts";
import { textTable } from "../table.ts";
import { DECODE_PART } from "./decode_part.ts";
import { type GpuHardware, readGpu, readGpuState } from "./gpu_hardware.ts";
import { GPU_USAGE, type GpuBenchOptions, parseGpuOptions } from "./options.ts";
import type { Part, PartResult } from "./part.ts";
import { PREFILL_PART } from "./prefill_part.ts";
import { PRODUCT_PART } from "./product_part.ts";
import { GPU_RESULT_VERSION, type GpuBenchResult, judgeRows } from "./result.ts";
import type { PartId } from "./row.ts";
import { SERVING_PART } from "./serving_part.ts";
import { START_PART } from "./start_part.ts";
import { STEP_PART } from "./step_part.ts";
import { gpuCeilings, gpuTable } from "./table.ts";

const PARTS: Readonly<Record<PartId, Part>> = {
  start: START_PART,
  decode: DECODE_PART,
  prefill: PREFILL_PART,
  products: PRODUCT_PART,
  steps: STEP_PART,
  serving: SERVING_PART,
};

/** Where the JSON goes unless a file is named. */
function defaultFile(date: string): string {
  return fileURLToPath(new URL(`../results/${date.slice(0, 10)}-gpu.json`, import.meta.url));
}

/** What a run collects, part by part. */
interface Collected {
  readonly done: PartResult[];
  readonly notes: string[];
}

function toResult(
  { done, notes }: Collected,
  facts: Pick<GpuBenchResult, "date" | "commit" | "hardware" | "seed">,
): GpuBenchResult {
  return {
    version: GPU_RESULT_VERSION,
    ...facts,
    stateAfter: readGpuState(),
    torch: done.find(({ torch }) => torch !== undefined)?.torch,
    ceilings: Object.assign({}, ...done.map(({ ceilings }) => ceilings ?? {})),
    rows: judgeRows(done.flatMap(({ rows }) => rows)),
    notes: [...notes, ...done.flatMap(({ notes = [] }) => notes)],
  };
}

async function measure(options: GpuBenchOptions, hardware: GpuHardware): Promise<GpuBenchResult> {
  const date = new Date().toISOString();
  const { parts, seed } = options;
  const facts = { date, commit: options.commit ?? await readCommit(), hardware, seed };
  const file = options.json ?? defaultFile(date);
  Deno.mkdirSync(dirname(file), { recursive: true });
  const collected: Collected = { done: [], notes: [] };
  const log = (line: string) => console.error(line);
  for (const id of parts) {
    const begin = performance.now();
    try {
      collected.done.push(await PARTS[id].run({ ...options, log }));
    } catch (error) {
      collected.notes.push(`${id}: ${error instanceof Error ? error.message : error}`);
    }
    log(`${id}: ${((performance.now() - begin) / 1000).toFixed(1)} s`);
    // After each part, so that a run that is cut off leaves what it has.
    Deno.writeTextFileSync(file, `${JSON.stringify(toResult(collected, facts), undefined, 2)}\n`);
  }
  console.error(`written to ${file}`);
  return toResult(collected, facts);
}

/**
 * Runs the benchmark with command-line arguments. Returns the exit code: 0 when every part asked for was measured or there is
 * no GPU, 1 when one was not, 2 when the arguments are wrong. A missed goal is a result, not a failure.
 */
export async function benchGpu(args: readonly string[]): Promise<number> {
  let options: GpuBenchOptions | undefined;
  try {
    options = parseGpuOptions(args);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    console.error(error.message);
    return 2;
  }
  if (options === undefined) {
    console.log(GPU_USAGE);
    return 0;
  }
  const missing = TestGpu.missing();
  if (missing !== undefined) {
    console.log(`No GPU is used: ${missing}\nGPU benchmark: 0 parts measured, ${options.parts.length} skipped`);
    return 0;
  }
  const result = await measure(options, readGpu());
  const { name, driver, capability } = result.hardware;
  console.log(`${name}, compute capability ${capability}, CUDA ${driver}; commit ${result.commit}`);
  console.log(textTable(gpuTable(result)));
  if (Object.keys(result.ceilings).length > 0) console.log(`\n${textTable(gpuCeilings(result))}`);
  for (const note of result.notes) console.log(`left out: ${note}`);
  return result.notes.length === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await benchGpu(Deno.args));
