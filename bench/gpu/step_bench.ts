/**
 * Steps of the whole device from the calling thread: decoding over contexts and batches, and prefill, as time and as the
 * share of the roofline (weights and KV read once at the read ceiling of the same run).
 *
 *     deno run -A bench/gpu/step_bench.ts [--model NAME] [--quick] [--no-overlap] [--skinny] [--no-graphs] [--json FILE]
 *
 * @module
 */
import { parseArgs } from "node:util";
import { CudaContext } from "../../ffi/cuda/cuda.ts";
import { KernelCache } from "../../kernels/cuda/kernel_cache.ts";
import { CudaDevice } from "../../runtime/device/cuda_device.ts";
import { CUDA_BLOCK_TOKENS } from "../../runtime/device/cuda_tables.ts";
import type { StepSequence } from "../../runtime/device/device.ts";
import { weightPlaces } from "../../runtime/device/cuda_weights.ts";
import { BENCH_SHAPES, type BenchShape } from "./shapes.ts";
import { readCeiling } from "./read_ceiling.ts";

/** Steps before and while time is taken. */
const WARM_STEPS = 3;
const MEASURED_STEPS = 15;
/** Most tokens of a prefill step. */
const STEP_TOKENS = 8192;

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
}

/** Bytes of keys and values of one token. */
function kvTokenBytes({ config: { layers, kvHeads, headDim } }: BenchShape): number {
  return 4 * layers * kvHeads * headDim;
}

function median(times: readonly number[]): number {
  return times.toSorted((a, b) => a - b)[times.length >> 1];
}

/** Sequences of `context` tokens each that decode one more. Blocks hold whatever is there; time does not depend on it. */
function decodeBatch(batch: number, context: number, step: number): StepSequence[] {
  const count = Math.ceil((context + 64) / CUDA_BLOCK_TOKENS);
  return Array.from({ length: batch }, (_, index) => ({
    tokens: [(index * 7 + step) % 1000],
    position: context + step,
    blocks: Int32Array.from({ length: count }, (_, i) => index * count + i),
    logits: "last",
  }));
}

function timeSteps(device: CudaDevice, makeBatch: (step: number) => StepSequence[]): number {
  const times: number[] = [];
  for (let step = 0; step < WARM_STEPS + MEASURED_STEPS; step++) {
    const batch = makeBatch(step);
    const begin = performance.now();
    const output = device.step(batch);
    if (output.rows > 0) output.top(0);
    if (step >= WARM_STEPS) times.push(performance.now() - begin);
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
  readonly skinny?: boolean;
}

/** Measures one model. */
export function* measureShape(
  shape: BenchShape,
  { ceiling, quick, ...switches }: MeasureOptions,
): Generator<StepRow> {
  using device = CudaDevice.random(shape.config, { ...switches, tied: shape.tied, maxStepTokens: STEP_TOKENS });
  const weightBytes = weightPlaces(shape.config, { tied: shape.tied, biases: false }).bytes;
  const poolTokens = device.blocks * CUDA_BLOCK_TOKENS;
  // The embedding's rows are looked up, not read; a tied one is the head.
  const read = weightBytes - (shape.tied ? 0 : 2 * shape.config.vocab * shape.config.hidden);
  const cells = quick
    ? [[1, 128], [1, 1024], [1, 16_384], [32, 1024], [128, 1024]]
    : [[1, 128], [1, 1024], [1, 8192], [1, 32_768], [1, 122_880], [32, 1024], [64, 1024], [128, 1024], [256, 1024]];
  for (const [batch, context] of cells) {
    if (batch * (context + 128) > poolTokens) continue;
    const ms = timeSteps(device, (step) => decodeBatch(batch, context, step));
    const bytes = read + batch * context * kvTokenBytes(shape);
    yield {
      model: shape.name,
      what: `decode b${batch} at ${context}`,
      ms,
      tokensPerSecond: 1000 * batch / ms,
      roofline: 1000 * bytes / ceiling / ms,
    };
  }
  const tokens = Array.from({ length: STEP_TOKENS }, (_, i) => (i * 31) % 1000);
  const blocks = Int32Array.from({ length: STEP_TOKENS / CUDA_BLOCK_TOKENS }, (_, i) => i);
  const ms = timeSteps(device, () => [{ tokens, position: 0, blocks, logits: "last" }]);
  yield { model: shape.name, what: `prefill ${STEP_TOKENS}`, ms, tokensPerSecond: 1000 * STEP_TOKENS / ms };
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      model: { type: "string", multiple: true },
      quick: { type: "boolean" },
      "no-overlap": { type: "boolean" },
      skinny: { type: "boolean" },
      "no-graphs": { type: "boolean" },
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
      skinny: values.skinny ?? false,
    };
    for (const row of measureShape(shape, options)) {
      rows.push(row);
      const share = row.roofline === undefined ? "" : `  ${row.roofline.toFixed(3)} of the roofline`;
      console.log(
        `${row.model}  ${row.what.padEnd(20)}  ${row.ms.toFixed(3)} ms  ${
          row.tokensPerSecond.toFixed(0)
        } tokens/s${share}`,
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
