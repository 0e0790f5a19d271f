/**
 * Steps of the whole device from the calling thread: decoding over contexts and batches, and prefill, as time and as the
 * share of the roofline (weights and KV read once at the read ceiling of the same run).
 *
 *     deno run -A bench/gpu/step_bench.ts [--model NAME] [--quick] [--no-overlap] [--no-direct] [--resident] [--no-graphs] [--no-trim] [--kv-type fp8] [--json FILE]
 *
 * @module
 */
import { parseArgs } from "node:util";
import { CudaContext } from "../../ffi/cuda/cuda.ts";
import { KernelCache } from "../../kernels/cuda/kernel_cache.ts";
import { CudaDevice, type CudaDeviceOptions } from "../../runtime/device/cuda_device.ts";
import type { PoolKvType } from "../../kernels/kv_copy/pool_layout.ts";
import { CUDA_BLOCK_TOKENS } from "../../runtime/device/cuda_tables.ts";
import type { StepSequence } from "../../runtime/device/device.ts";
import { kvTokenBytes } from "../../runtime/device/kv_size.ts";
import { readBytes, uniformTypes, weightPlaces } from "../../runtime/device/cuda_weights.ts";
import { BENCH_SHAPES, type BenchShape } from "./shapes.ts";
import { readCeiling } from "./read_ceiling.ts";

/** Steps before and while time is taken; together they stay within the block behind the context. */
const WARM_STEPS = 6;
const MEASURED_STEPS = 24;
/** Runs of a prompt, of which the first does not count. */
const PROMPT_RUNS = 4;
/** Tokens of a prefill step. */
const STEP_TOKENS = 8192;
/** Tokens of the prompts. */
const PROMPTS = [8192, 65_536] as const;
/** Cells of packed weights. */
const PACKED_CELLS: readonly (readonly [number, number])[] = [[1, 128], [1, 1024], [4, 1024], [32, 1024], [128, 1024]];

/** One measurement. */
export interface StepRow {
  /** Model. */
  readonly model: string;
  /** What was run. */
  readonly what: string;
  /** Milliseconds of a step, median. */
  readonly ms: number;
  /** Tokens per second. */
  readonly tokensPerSecond: number;
  /** Share of the roofline; for decoding only. */
  readonly roofline?: number;
  /** Share of the time between the ends of steps in which the GPU does nothing; for decoding only. */
  readonly idle?: number;
  /** Milliseconds of the same step of a device that is not deterministic; for one that is. */
  readonly plainMs?: number;
}

/** Cells of FP8 KV: where keys and values are most of what a step reads, and one where they are not. */
const FP8_CELLS: readonly (readonly [number, number])[] = [[1, 1024], [1, 122_880], [32, 8192], [128, 1024]];

function median(times: readonly number[]): number {
  return times.toSorted((a, b) => a - b)[times.length >> 1];
}

/** A decode step of `batch` sequences that have `context` tokens; blocks hold random keys and values. */
function decodeBatch(
  { batch, context, ahead }: DecodeCell,
  { step, tokens }: { readonly step: number; readonly tokens: readonly number[] },
): StepSequence[] {
  const count = Math.ceil(context / CUDA_BLOCK_TOKENS) + 1;
  return Array.from({ length: batch }, (_, index) => ({
    tokens: [tokens[index]],
    position: context + step,
    blocks: Int32Array.from({ length: count }, (_, i) => index * count + i),
    logits: "last",
    ...(ahead && { next: { mode: { kind: "greedy" }, accepted: step } }),
  }));
}

/** What a decode measurement runs. */
interface DecodeCell {
  readonly batch: number;
  readonly context: number;
  /** Whether the device may begin a step before it is asked for it. */
  readonly ahead: boolean;
}

/** Decodes as an engine does: each step's tokens are the likeliest ones of the step before. */
function timeDecode(device: CudaDevice, cell: DecodeCell): { readonly ms: number; readonly idle: number | undefined } {
  let tokens = Array.from({ length: cell.batch }, (_, index) => index % 1000);
  const times: number[] = [];
  const onGpu: { readonly beganMs: number; readonly endedMs: number }[] = [];
  let begin = performance.now();
  for (let step = 0; step < WARM_STEPS + MEASURED_STEPS; step++) {
    const output = device.step(decodeBatch(cell, { step, tokens }));
    tokens = tokens.map((_, row) => output.top(row).ids[0]);
    const end = performance.now();
    if (step >= WARM_STEPS) {
      times.push(end - begin);
      if (device.times !== undefined) onGpu.push(device.times);
    }
    begin = end;
  }
  const gaps = onGpu.slice(1).reduce((sum, { beganMs }, i) => sum + beganMs - onGpu[i].endedMs, 0);
  const span = onGpu.length < 2 ? undefined : onGpu[onGpu.length - 1].endedMs - onGpu[0].endedMs;
  return { ms: median(times), idle: span === undefined ? undefined : gaps / span };
}

/** Milliseconds of a whole prompt, cut into steps. */
function timePrompt(device: CudaDevice, prompt: number): number {
  const blocks = Int32Array.from({ length: prompt / CUDA_BLOCK_TOKENS }, (_, i) => i);
  const times: number[] = [];
  for (let run = 0; run < PROMPT_RUNS; run++) {
    const begin = performance.now();
    for (let position = 0; position < prompt; position += STEP_TOKENS) {
      const tokens = Array.from({ length: STEP_TOKENS }, (_, i) => (position + i * 31) % 1000);
      device.step([{ tokens, position, blocks, logits: position + STEP_TOKENS === prompt ? "last" : "none" }]);
    }
    if (run > 0) times.push(performance.now() - begin);
  }
  return median(times);
}

/** How to measure. */
export interface MeasureOptions {
  /** Bytes per second that memory is read at. */
  readonly ceiling: number;
  /** Whether fewer cells do. */
  readonly quick: boolean;
  /** See `CudaDeviceOptions`. */
  readonly overlap?: boolean;
  /** See `CudaDeviceOptions`. */
  readonly graphs?: boolean;
  /** See `CudaDeviceOptions`. */
  readonly trim?: boolean;
  /** See `CudaDeviceOptions`. */
  readonly direct?: boolean;
  /** See `CudaDeviceOptions`. */
  readonly resident?: CudaDeviceOptions["resident"];
  /** Element type of the pool. @default {"bf16"} */
  readonly kvType?: PoolKvType;
}

/** Measures one model. */
export function* measureShape(
  shape: BenchShape,
  { ceiling, quick, kvType = "bf16", ...switches }: MeasureOptions,
): Generator<StepRow> {
  const packing = shape.packed === undefined ? {} : { stored: uniformTypes(shape.packed), weights: "packed" as const };
  using device = CudaDevice.random(shape.config, {
    ...switches,
    kvType,
    tied: shape.tied,
    ...packing,
    maxStepTokens: STEP_TOKENS,
    timing: true,
  });
  const poolTokens = device.blocks * CUDA_BLOCK_TOKENS;
  const places = weightPlaces(shape.config, {
    tied: shape.tied,
    biases: false,
    stored: packing.stored,
    keep: packing.weights,
  });
  const read = readBytes(places, shape.config);
  const variant = kvType === "fp8" ? ", fp8 KV" : "";
  const cells: readonly (readonly [number, number])[] = kvType === "fp8"
    ? FP8_CELLS
    : shape.packed !== undefined
    ? PACKED_CELLS
    : quick
    ? [[1, 256], [1, 1024], [1, 16_384], [32, 1024], [64, 256], [128, 1024]]
    : [
      ...([128, 256, 1024, 8192, 32_768, 122_880].map((context) => [1, context] as const)),
      ...([32, 64, 128, 256].map((batch) => [batch, 1024] as const)),
      [64, 256],
    ];
  for (const [batch, context] of cells) {
    if (batch * (context + 128) > poolTokens) continue;
    const bytes = read + batch * context * kvTokenBytes(shape.config, kvType);
    // What beginning ahead is worth is shown once for few and once for many sequences.
    const compared = kvType === "bf16" && (context === 1024 && batch === 1 || context === 256 && batch === 64);
    for (const ahead of compared ? [true, false] : [true]) {
      const { ms, idle } = timeDecode(device, { batch, context, ahead });
      yield {
        model: shape.name,
        what: `decode b${batch} at ${context}${variant}${ahead ? "" : ", each step when it is asked for"}`,
        ms,
        tokensPerSecond: 1000 * batch / ms,
        roofline: 1000 * bytes / ceiling / ms,
        idle,
      };
    }
  }
  for (const prompt of quick || kvType === "fp8" || shape.packed !== undefined ? [STEP_TOKENS] : PROMPTS) {
    if (prompt > poolTokens) continue;
    const ms = timePrompt(device, prompt);
    yield { model: shape.name, what: `prefill ${prompt}${variant}`, ms, tokensPerSecond: 1000 * prompt / ms };
  }
}

/** Decode steps and a prompt that show what `deterministic` costs. */
const DETERMINISTIC_CELLS = [[1, 1024], [32, 1024]] as const;

function* timeDeterministic(
  { config, tied }: BenchShape,
  deterministic: boolean,
): Generator<{ readonly what: string; readonly ms: number; readonly tokens: number }> {
  using device = CudaDevice.random(config, { tied, deterministic, maxStepTokens: STEP_TOKENS });
  for (const [batch, context] of DETERMINISTIC_CELLS) {
    const { ms } = timeDecode(device, { batch, context, ahead: true });
    yield { what: `decode b${batch} at ${context}`, ms, tokens: batch };
  }
  yield { what: `prefill ${STEP_TOKENS}`, ms: timePrompt(device, STEP_TOKENS), tokens: STEP_TOKENS };
}

/** Measures what it costs one model to be deterministic. */
export function measureDeterministic(shape: BenchShape): StepRow[] {
  const plain = [...timeDeterministic(shape, false)];
  return [...timeDeterministic(shape, true)].map(({ what, ms, tokens }, index) => ({
    model: shape.name,
    what: `${what}, deterministic`,
    ms,
    tokensPerSecond: 1000 * tokens / ms,
    plainMs: plain[index].ms,
  }));
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      model: { type: "string", multiple: true },
      quick: { type: "boolean" },
      "no-overlap": { type: "boolean" },
      "no-direct": { type: "boolean" },
      "resident": { type: "boolean" },
      "no-graphs": { type: "boolean" },
      "no-trim": { type: "boolean" },
      "kv-type": { type: "string" },
      deterministic: { type: "boolean", default: false },
      json: { type: "string" },
    },
  });
  const ceiling = (() => {
    using context = CudaContext.open();
    const bytesPerSecond = readCeiling(context, KernelCache.open(context));
    console.log(`${context.properties.name}: reads ${(bytesPerSecond / 1e12).toFixed(2)} TB/s`);
    return bytesPerSecond;
  })();
  const rows: StepRow[] = [];
  for (const shape of BENCH_SHAPES) {
    if (values.model !== undefined && !values.model.includes(shape.name)) continue;
    const options = {
      ceiling,
      quick: values.quick ?? false,
      overlap: !values["no-overlap"],
      graphs: !values["no-graphs"],
      trim: !values["no-trim"],
      direct: !values["no-direct"],
      resident: values.resident ? "faster" : "never",
      kvType: values["kv-type"] === "fp8" ? "fp8" : "bf16",
    } as const;
    for (const row of values.deterministic ? measureDeterministic(shape) : measureShape(shape, options)) {
      rows.push(row);
      const share = row.roofline === undefined ? "" : `  ${row.roofline.toFixed(3)} of the roofline`;
      const idle = row.idle === undefined ? "" : `  idle ${(100 * row.idle).toFixed(1)} %`;
      const plain = row.plainMs === undefined ? "" : `  ${row.plainMs.toFixed(3)} ms without`;
      console.log(
        `${row.model}  ${row.what.padEnd(20)}  ${row.ms.toFixed(3)} ms  ${
          row.tokensPerSecond.toFixed(0)
        } tokens/s${share}${idle}${plain}`,
      );
    }
  }
  if (values.json !== undefined) {
    Deno.writeTextFileSync(
      values.json,
      JSON.stringify({ date: new Date().toISOString(), ceiling, rows }, undefined, 2),
    );
  }
}
