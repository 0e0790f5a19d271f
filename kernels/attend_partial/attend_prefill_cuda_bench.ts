/**
 * Times causal prefill attention over the paged pool on GPU 0: TFLOP/s, share of a matrix product's rate in the same run, and
 * for whole prompts the ratio to cuDNN, which runs beside it when `python3` has PyTorch.
 *
 * `deno run -A kernels/attend_partial/attend_prefill_cuda_bench.ts [--quick] [--json FILE]`
 *
 * @module
 */
import { BlasLt, CudaContext, type CudaStream, type DeviceBuffer } from "../../ffi/cuda/cuda.ts";
import { KernelCache } from "../cuda/cuda.ts";
import { e4m3Bits } from "../e4m3.ts";
import { POOL_BLOCK_TOKENS, PoolLayout } from "../kv_copy/pool_layout.ts";
import { AttendPrefill, type PrefillVariant } from "./attend_prefill_cuda.ts";
import type { PrefillChunk, PrefillShape } from "./prefill_plan.ts";
import { SEEDS } from "./spec.ts";
import { randomValues, shuffled } from "./test_data.ts";

/** What is timed: the chunks of one launch. */
interface Job {
  readonly name: string;
  readonly shape: PrefillShape;
  readonly variant: PrefillVariant;
  readonly chunks: readonly { readonly tokens: number; readonly position: number }[];
  /** Tokens of the one prompt that cuDNN is given too. */
  readonly peer?: number;
}

const GROUPED: PrefillShape = { heads: 32, kvHeads: 8, headDim: 128 };
const SHAPES: readonly PrefillShape[] = [
  GROUPED,
  { heads: 32, kvHeads: 32, headDim: 128 },
  { heads: 9, kvHeads: 3, headDim: 64 },
];
const LENGTHS = [4096, 16384, 65536];
const QUICK_LENGTHS = [4096, 16384];
/** Chunks as a server has them. */
const CHUNKS: readonly (readonly [count: number, tokens: number, position: number])[] = [
  [1, 2048, 63488],
  [1, 512, 32256],
  [1, 256, 32512],
  [1, 128, 32640],
  [1, 16, 32752],
  [8, 1024, 0],
  [64, 64, 4032],
];

function named({ heads, kvHeads, headDim, kvType = "bf16" }: PrefillShape, rest: string): string {
  return `${heads}/${kvHeads} x ${headDim}, ${rest}${kvType === "bf16" ? "" : `, ${kvType}`}`;
}

/** Whole prompts, also with keys and values of 8 bits and with the bits of decode, then chunks. */
function jobsOf(hopper: boolean, lengths: readonly number[]): Job[] {
  const prompt = (shape: PrefillShape, tokens: number, variant: PrefillVariant, what = ""): Job => ({
    name: named(shape, `${tokens} tokens${what}`),
    shape,
    variant,
    chunks: [{ tokens, position: 0 }],
    peer: tokens,
  });
  const fastest: PrefillVariant = hopper ? "hopper" : "plain";
  const prompts = SHAPES.flatMap((shape) => lengths.map((tokens) => prompt(shape, tokens, fastest)));
  if (!hopper) return prompts;
  const others = lengths.flatMap((tokens) => [
    prompt({ ...GROUPED, kvType: "fp8" }, tokens, "hopper"),
    prompt(GROUPED, tokens, "tree", ", deterministic"),
  ]);
  const plain = prompt(GROUPED, lengths[0], "plain", ", any GPU");
  const chunks = CHUNKS.map(([count, tokens, position]): Job => ({
    name: named(GROUPED, `${count} x ${tokens} tokens behind ${position}`),
    shape: GROUPED,
    variant: "hopper",
    chunks: Array.from({ length: count }, () => ({ tokens, position })),
  }));
  return [...prompts, ...others, plain, ...chunks];
}

/** Rows, columns and depth of the matrix product that is the ceiling. */
const CEILING_SIZE = 8192;
/** Random bf16 values that buffers repeat. */
const PATTERN = 1 << 20;

/** One measurement. */
interface Row {
  readonly name: string;
  readonly variant: PrefillVariant;
  /** Median time of a launch. */
  readonly ms: number;
  readonly tflops: number;
  /** `tflops` as a share of the matrix product's rate. */
  readonly share: number;
  /** Rate of cuDNN, and ours over it; undefined where it did not run. */
  readonly peerTflops?: number;
  readonly ratio?: number;
}

/** Floating-point operations of what is seen. */
function flops({ shape: { heads, headDim }, chunks }: Job): number {
  return chunks.reduce((sum, { tokens, position }) => sum + 4 * heads * headDim * tokens * (position + tokens / 2), 0);
}

class Bench implements Disposable {
  readonly context: CudaContext;
  readonly #stack = new DisposableStack();
  readonly #stream: CudaStream;
  readonly #kernels: KernelCache;
  readonly #pattern: Uint8Array<ArrayBuffer>;
  /** The same as e4m3. */
  readonly #bytes: Uint8Array<ArrayBuffer>;

  constructor() {
    this.context = this.#stack.use(CudaContext.open());
    this.#stream = this.#stack.use(this.context.stream());
    this.#kernels = KernelCache.open(this.context);
    const values = randomValues(PATTERN, SEEDS.bench, 2);
    this.#bytes = Uint8Array.from(values, e4m3Bits);
    this.#pattern = new Uint8Array(Uint16Array.from(new Uint32Array(values.buffer), (bits) => bits >>> 16).buffer);
  }

  /** Median milliseconds of a launch. */
  #ms(repeats: number, launch: () => void): number {
    using start = this.context.event({ timing: true });
    using end = this.context.event({ timing: true });
    launch();
    const times = Array.from({ length: repeats }, () => {
      this.#stream.record(start);
      launch();
      this.#stream.record(end);
      end.synchronize();
      return end.msSince(start);
    });
    return times.sort((a, b) => a - b)[repeats >> 1];
  }

  #random(bytes: number, pattern: Uint8Array<ArrayBuffer> = this.#pattern): DeviceBuffer {
    const buffer = this.context.alloc(bytes);
    for (let at = 0; at < bytes; at += pattern.length) {
      this.#stream.copyToDevice(buffer.at(at), pattern.subarray(0, Math.min(pattern.length, bytes - at)));
    }
    return buffer;
  }

  /** TFLOP/s of a large matrix product, the best of the library's first algorithms. */
  ceiling(): number {
    using stack = new DisposableStack();
    const blas = stack.use(new BlasLt(this.context));
    const [a, w, d] = [0, 1, 2].map(() => stack.use(this.#random(2 * CEILING_SIZE ** 2)).address);
    const plan = blas.plan({ m: CEILING_SIZE, n: CEILING_SIZE, k: CEILING_SIZE, out: "bf16", add: false });
    const times = Array.from({ length: Math.min(3, plan.algorithms) }, (_, index) => {
      plan.choose(index);
      return this.#ms(10, () => plan.run(this.#stream, { a, w, d }));
    });
    return 2 * CEILING_SIZE ** 3 / Math.min(...times) / 1e9;
  }

  /** Median milliseconds of a launch. */
  launches(job: Job): number {
    const { shape, variant, chunks } = job;
    using stack = new DisposableStack();
    const kernel = stack.use(new AttendPrefill(this.context, { kernels: this.#kernels, shape, variant }));
    const { blockBytes } = new PoolLayout({ layers: 1, ...shape });
    let blocks = 0;
    let rows = 0;
    const plan = kernel.plan(chunks.map(({ tokens, position }): PrefillChunk => {
      const chunk = { queryRow: rows, tokens, position, table: blocks, output: { kind: "final", row: rows } } as const;
      blocks += Math.ceil((position + tokens) / POOL_BLOCK_TOKENS);
      rows += tokens;
      return chunk;
    }));
    const bytes = 2 * rows * shape.heads * shape.headDim;
    const [q, out] = [bytes, bytes].map((size) => stack.use(this.#random(size)).address);
    const pool = stack.use(this.#random(blocks * blockBytes, shape.kvType === "fp8" ? this.#bytes : this.#pattern));
    const [table, planned] = [Int32Array.from(shuffled(blocks, SEEDS.bench)), plan].map((words) => {
      const buffer = stack.use(this.context.alloc(words.byteLength));
      this.#stream.copyToDevice(buffer.address, new Uint8Array(words.buffer));
      return buffer.address;
    });
    const layer = pool.address;
    const work = { q, layer, blockBytes, table, plan: planned, items: kernel.items(plan), out };
    const repeats = Math.max(3, Math.min(30, Math.floor(4e13 / flops(job))));
    return this.#ms(repeats, () => kernel.launch(this.#stream, work));
  }

  [Symbol.dispose](): void {
    this.#stack.dispose();
  }
}

/** Heads, KV heads, width and tokens of what cuDNN is given for a job; undefined for one it is given nothing for. */
function peerArgument({ shape: { heads, kvHeads, headDim }, peer }: Job): string | undefined {
  return peer === undefined ? undefined : [heads, kvHeads, headDim, peer].join();
}

/** Milliseconds of cuDNN for each argument, NaN for a shape that it does not take; none where PyTorch is missing. */
async function peerTimes(args: readonly string[]): Promise<number[]> {
  const script = new URL("./attend_prefill_peer.py", import.meta.url).pathname;
  try {
    const { stdout, success } = await new Deno.Command("python3", { args: [script, ...args], stderr: "null" }).output();
    return success ? new TextDecoder().decode(stdout).trim().split("\n").map(Number) : [];
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

if (import.meta.main) {
  const lengths = Deno.args.includes("--quick") ? QUICK_LENGTHS : LENGTHS;
  const hopper = CudaContext.list()[0].major === 9;
  const jobs = jobsOf(hopper, lengths);
  const asked = [...new Set(jobs.flatMap((job) => peerArgument(job) ?? []))];
  const before = await peerTimes(asked);
  const rows: Row[] = [];
  let ceiling = 0;
  let device = "";
  {
    using bench = new Bench();
    ({ name: device } = bench.context.properties);
    ceiling = bench.ceiling();
    for (const job of jobs) {
      const ms = bench.launches(job);
      const tflops = flops(job) / ms / 1e9;
      rows.push({ name: job.name, variant: job.variant, ms, tflops, share: tflops / ceiling });
    }
  }
  const after = await peerTimes(asked);
  const record = rows.map((row, index): Row => {
    const argument = peerArgument(jobs[index]);
    const at = argument === undefined ? -1 : asked.indexOf(argument);
    if (!Number.isFinite(before[at]) || !Number.isFinite(after[at])) return row;
    const peerTflops = flops(jobs[index]) / Math.min(before[at], after[at]) / 1e9;
    return { ...row, peerTflops, ratio: row.tflops / peerTflops };
  });
  console.log(`${device}: matrix product ${CEILING_SIZE}^3 ${ceiling.toFixed(0)} TFLOP/s`);
  for (const { name, variant, ms, tflops, share, peerTflops, ratio } of record) {
    console.log(
      `${name.padEnd(46)} ${variant.padEnd(7)} ${ms.toFixed(3).padStart(9)} ms ${
        tflops.toFixed(0).padStart(5)
      } TFLOP/s ` +
        `${share.toFixed(2)} of the product` +
        (peerTflops === undefined ? "" : `  cuDNN ${peerTflops.toFixed(0)}, ratio ${ratio?.toFixed(2)}`),
    );
  }
  const json = Deno.args.indexOf("--json");
  if (json >= 0) {
    const result = { kernel: "attend_prefill", device, seed: SEEDS.bench, productTflops: ceiling, rows: record };
    await Deno.writeTextFile(Deno.args[json + 1], JSON.stringify(result, null, 2) + "\n");
  }
}
