/**
 * Times causal prefill attention over the paged pool on GPU 0: TFLOP/s, share of a matrix product's rate in the same run, and
 * ratio to cuDNN, which runs beside it when `python3` has PyTorch.
 *
 * `deno run -A kernels/attend_partial/attend_prefill_cuda_bench.ts [--quick] [--json FILE]`
 *
 * @module
 */
import { BlasLt, CudaContext, type CudaStream, type DeviceBuffer } from "../../ffi/cuda/cuda.ts";
import { KernelCache } from "../cuda/cuda.ts";
import { POOL_BLOCK_TOKENS, PoolLayout } from "../kv_copy/pool_layout.ts";
import { AttendPrefill, type PrefillVariant } from "./attend_prefill_cuda.ts";
import type { PrefillShape } from "./prefill_plan.ts";
import { SEEDS } from "./spec.ts";
import { randomValues, shuffled } from "./test_data.ts";

const SHAPES: readonly PrefillShape[] = [
  { heads: 32, kvHeads: 8, headDim: 128 },
  { heads: 32, kvHeads: 32, headDim: 128 },
  { heads: 9, kvHeads: 3, headDim: 64 },
];
const LENGTHS = [4096, 16384, 65536];
const QUICK_LENGTHS = [4096, 16384];
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

/** Causal floating-point operations of a whole prompt. */
function flops({ heads, headDim }: PrefillShape, tokens: number): number {
  return 2 * tokens * tokens * heads * headDim;
}

class Bench implements Disposable {
  readonly context: CudaContext;
  readonly #stack = new DisposableStack();
  readonly #stream: CudaStream;
  readonly #kernels: KernelCache;
  readonly #pattern: Uint8Array<ArrayBuffer>;

  constructor() {
    this.context = this.#stack.use(CudaContext.open());
    this.#stream = this.#stack.use(this.context.stream());
    this.#kernels = KernelCache.open(this.context);
    const values = randomValues(PATTERN, SEEDS.bench, 2);
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

  #random(bytes: number): DeviceBuffer {
    const buffer = this.context.alloc(bytes);
    for (let at = 0; at < bytes; at += this.#pattern.length) {
      this.#stream.copyToDevice(buffer.at(at), this.#pattern.subarray(0, Math.min(this.#pattern.length, bytes - at)));
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

  /** Median milliseconds of a whole prompt. */
  prompt(shape: PrefillShape, { tokens, variant }: { tokens: number; variant: PrefillVariant }): number {
    using stack = new DisposableStack();
    const kernel = stack.use(new AttendPrefill(this.context, { kernels: this.#kernels, shape, variant }));
    const { blockBytes } = new PoolLayout({ layers: 1, kvHeads: shape.kvHeads, headDim: shape.headDim });
    const blocks = Math.ceil(tokens / POOL_BLOCK_TOKENS);
    const bytes = 2 * tokens * shape.heads * shape.headDim;
    const [q, out, pool] = [bytes, bytes, blocks * blockBytes].map((size) => stack.use(this.#random(size)).address);
    const plan = kernel.plan([{ queryRow: 0, tokens, position: 0, table: 0, output: { kind: "final", row: 0 } }]);
    const [table, planned] = [Int32Array.from(shuffled(blocks, SEEDS.bench)), plan].map((words) => {
      const buffer = stack.use(this.context.alloc(words.byteLength));
      this.#stream.copyToDevice(buffer.address, new Uint8Array(words.buffer));
      return buffer.address;
    });
    const work = { q, layer: pool, blockBytes, table, plan: planned, items: kernel.items(plan), out };
    const repeats = Math.max(3, Math.min(30, Math.floor(10 * (16384 / tokens) ** 2)));
    return this.#ms(repeats, () => kernel.launch(this.#stream, work));
  }

  [Symbol.dispose](): void {
    this.#stack.dispose();
  }
}

/** Milliseconds of cuDNN for each shape and length; none where PyTorch is missing. */
async function peer(jobs: readonly { readonly shape: PrefillShape; readonly tokens: number }[]): Promise<number[]> {
  const script = new URL("./attend_prefill_peer.py", import.meta.url).pathname;
  const args = jobs.map(({ shape: { heads, kvHeads, headDim }, tokens }) => [heads, kvHeads, headDim, tokens].join());
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
  const jobs = SHAPES.flatMap((shape) => lengths.map((tokens) => ({ shape, tokens })));
  const before = await peer(jobs);
  const rows: Row[] = [];
  let ceiling = 0;
  let device = "";
  {
    using bench = new Bench();
    ({ name: device } = bench.context.properties);
    ceiling = bench.ceiling();
    for (const { shape, tokens } of jobs) {
      const variants: PrefillVariant[] = bench.context.properties.major === 9 ? ["hopper", "plain"] : ["plain"];
      for (const variant of variants) {
        const ms = bench.prompt(shape, { tokens, variant });
        const tflops = flops(shape, tokens) / ms / 1e9;
        const name = `${shape.heads}/${shape.kvHeads} x ${shape.headDim}, ${tokens} tokens`;
        rows.push({ name, variant, ms, tflops, share: tflops / ceiling });
      }
    }
  }
  const after = await peer(jobs);
  const record = rows.map((row): Row => {
    const job = jobs.findIndex(({ shape: s, tokens }) =>
      row.name === `${s.heads}/${s.kvHeads} x ${s.headDim}, ${tokens} tokens`
    );
    if (before[job] === undefined || after[job] === undefined) return row;
    const peerTflops = flops(jobs[job].shape, jobs[job].tokens) / Math.min(before[job], after[job]) / 1e9;
    return { ...row, peerTflops, ratio: row.tflops / peerTflops };
  });
  console.log(`${device}: matrix product ${CEILING_SIZE}^3 ${ceiling.toFixed(0)} TFLOP/s`);
  for (const { name, variant, ms, tflops, share, peerTflops, ratio } of record) {
    console.log(
      `${name.padEnd(26)} ${variant.padEnd(7)} ${ms.toFixed(3).padStart(9)} ms ${
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
