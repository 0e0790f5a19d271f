/**
 * Times products of few tokens on the GPU, from cold memory: launches back to back in a graph, each with other weights, beside
 * cuBLASLt (its algorithm chosen by timing) and a bulk read of as many bytes in the same run.
 *
 * `deno run -A kernels/linear/linear_cuda_bench.ts [--quick] [--json FILE]`
 *
 * @module
 */
import { BlasLt, CudaContext, type CudaFunction, type CudaStream, type DeviceBuffer } from "../../ffi/cuda/cuda.ts";
import readSource from "../attend_partial/bulk_read.cu" with { type: "text" };
import { KernelCache } from "../cuda/cuda.ts";
import { cudaMatrixBytes, cudaPairBytes, type CudaWeightType } from "./cuda_layout.ts";
import { DirectLinear, type LinearOutput, MAX_DIRECT_TOKENS } from "./linear_direct_cuda.ts";
import { MAX_PACKED_TOKENS, PackedLinear } from "./linear_packed_cuda.ts";
import { WideLinear } from "./linear_packed_wide_cuda.ts";
import { MAX_STREAM_TOKENS, STREAM_CHOICES, type StreamKind, StreamLinear } from "./linear_stream_cuda.ts";
import { SEEDS } from "./spec.ts";

/** Bytes of one piece of the read, and pieces in flight on a multiprocessor. */
const CHUNK = 16384;
const CHUNKS = 12;
/** Memory that all weights lie in; more than any cache holds. */
const POOL_BYTES = 2.25 * 2 ** 30;
/** Launches of a graph read at least this much together. */
const COLD_BYTES = 256 * 2 ** 20;
const REPLAYS = 12;

interface Product {
  readonly name: string;
  readonly rows: number;
  readonly cols: number;
  readonly output: LinearOutput;
}

const PRODUCTS: readonly Product[] = [
  { name: "7B q k v", rows: 12288, cols: 4096, output: "bf16" },
  { name: "o", rows: 4096, cols: 4096, output: "add" },
  { name: "7B gate up", rows: 11008, cols: 4096, output: "swiglu" },
  { name: "7B down", rows: 4096, cols: 11008, output: "add" },
  { name: "7B head", rows: 32000, cols: 4096, output: "f32" },
  { name: "8B q k v", rows: 6144, cols: 4096, output: "bf16" },
  { name: "8B gate up", rows: 14336, cols: 4096, output: "swiglu" },
  { name: "8B down", rows: 4096, cols: 14336, output: "add" },
  { name: "8B head", rows: 128256, cols: 4096, output: "f32" },
  { name: "135M q k v", rows: 960, cols: 576, output: "bf16" },
  { name: "135M o", rows: 576, cols: 576, output: "add" },
  { name: "135M gate up", rows: 1536, cols: 576, output: "swiglu" },
  { name: "135M down", rows: 576, cols: 1536, output: "add" },
  { name: "135M head", rows: 49152, cols: 576, output: "f32" },
];

/** One measurement. */
interface Row {
  readonly name: string;
  readonly dtype: CudaWeightType;
  readonly tokens: number;
  /** The faster one of our kernels. */
  readonly kernel: "direct" | "packed" | "wide" | StreamKind;
  /** Median time of its launch, microseconds; with programmatic launches, and with plain ones. */
  readonly us: number;
  readonly plainUs: number;
  /** Bytes of weights over `us`, TB/s. */
  readonly tbs: number;
  /** Time of a bulk read of as many bytes, microseconds. */
  readonly readUs: number;
  /** Time of cuBLASLt's product of bf16 weights, without an activation; undefined for packed weights. */
  readonly blasUs?: number;
}

class Bench implements Disposable {
  readonly context = CudaContext.open();
  readonly #kernels = KernelCache.open(this.context);
  readonly #stream: CudaStream = this.context.stream();
  readonly #blas = new BlasLt(this.context);
  readonly #linear = new DirectLinear(this.#kernels, this.context.properties);
  readonly #packed = new PackedLinear(this.#kernels, this.context.properties);
  readonly #wide = new WideLinear(this.context, this.#kernels);
  readonly #streamed = new StreamLinear(this.context, this.#kernels);
  readonly #pool: DeviceBuffer = this.context.alloc(POOL_BYTES);
  readonly #x: DeviceBuffer = this.context.alloc(4 * 64 * 16384);
  readonly #out: DeviceBuffer = this.context.alloc(4 * 64 * 131072);
  readonly #read: CudaFunction;

  constructor() {
    const module = this.#kernels.module({ name: "bulk_read", source: readSource, defines: { CHUNK, STAGES: CHUNKS } });
    this.#read = module.function("bulk_read");
    this.#read.setSharedBytes(CHUNK * CHUNKS);
    this.#fill(this.#pool);
    this.#fill(this.#x);
    this.#stream.fill(this.#out.address, 0, this.#out.bytes);
    this.#stream.synchronize();
  }

  /** Random bf16 of about one; as f16 scales of packed weights they are finite too. */
  #fill(buffer: DeviceBuffer): void {
    const part = new Uint16Array(2 ** 21);
    let state: number = SEEDS.bench;
    for (let i = 0; i < part.length; i++) {
      state = Math.imul(state, 1664525) + 1013904223 | 0;
      part[i] = 0x3f00 | state >>> 16 & 0x80ff;
    }
    this.#stream.copyToDevice(buffer.address, new Uint8Array(part.buffer, 0, Math.min(part.byteLength, buffer.bytes)));
    for (let done = part.byteLength; done < buffer.bytes; done *= 2) {
      this.#stream.copy(buffer.at(done), buffer.address, Math.min(done, buffer.bytes - done));
    }
  }

  /** Median microseconds of one of `count` launches in a graph. */
  #us(count: number, launch: (index: number) => void): number {
    using graph = this.#stream.capture(() => {
      for (let i = 0; i < count; i++) launch(i);
    });
    using start = this.context.event({ timing: true });
    using end = this.context.event({ timing: true });
    const times = Array.from({ length: REPLAYS }, () => {
      this.#stream.record(start);
      graph.launch(this.#stream);
      this.#stream.record(end);
      end.synchronize();
      return end.msSince(start) * 1000 / count;
    }).slice(1).sort((a, b) => a - b);
    return times[times.length >> 1];
  }

  /** The read ceiling, TB/s. */
  ceiling(): number {
    const bytes = 2 ** 30;
    return bytes / this.#readUs(bytes, 2) / 1e6;
  }

  #readUs(bytes: number, count: number): number {
    const pieces = Math.floor(bytes / CHUNK);
    return this.#us(count, (i) =>
      this.#stream.launch(this.#read, {
        grid: [this.context.properties.multiprocessors],
        block: [32],
        sharedBytes: CHUNK * CHUNKS,
        args: [{ ptr: this.#pool.at(i * bytes) }, { u64: BigInt(pieces) }],
      }));
  }

  /** Times one product with weights of a type. */
  row({ name, rows, cols, output }: Product, dtype: CudaWeightType, tokens: number): Row {
    const parts = output === "swiglu" ? 2 : 1;
    const bytes = (parts === 2 ? cudaPairBytes : cudaMatrixBytes)({ dtype, rows, cols });
    const count = Math.max(2, Math.min(48, Math.ceil(COLD_BYTES / bytes)));
    const [x, out] = [this.#x.address, this.#out.address];
    const timed = this.#candidates({ name, rows, cols, output }, dtype, tokens).map(({ kernel, plan }) => {
      const us = (programmatic: boolean): number =>
        this.#us(count, (i) => plan.run(this.#stream, { weights: this.#pool.at(i * bytes), x, out, programmatic }));
      return { kernel, us: us(true), plainUs: us(false) };
    });
    const best = timed.reduce((least, one) => one.us < least.us ? one : least);
    return {
      name: `${name} ${parts * rows}x${cols}`,
      dtype,
      tokens,
      ...best,
      tbs: bytes / best.us / 1e6,
      readUs: this.#readUs(bytes, count),
      blasUs: dtype === "BF16" ? this.#blasUs({ m: tokens, n: parts * rows, k: cols }, output) : undefined,
    };
  }

  /** Our kernels that can do a product. */
  #candidates({ rows, cols, output }: Product, dtype: CudaWeightType, tokens: number) {
    const shape = { rows, cols, tokens, output };
    if (dtype !== "BF16") {
      const packed = { dtype, ...shape };
      return tokens <= MAX_PACKED_TOKENS
        ? [{ kernel: "packed" as const, plan: this.#packed.plan(packed) }]
        : [{ kernel: "wide" as const, plan: this.#wide.plan(packed) }];
    }
    const direct = tokens <= MAX_DIRECT_TOKENS ? [{ kernel: "direct" as const, plan: this.#linear.plan(shape) }] : [];
    const kinds: readonly StreamKind[] = tokens <= MAX_STREAM_TOKENS ? ["stream", "streamPairs"] : [];
    const streamed = kinds.map((kernel) => ({ kernel, plan: this.#streamed.plan(shape, STREAM_CHOICES[kernel]) }));
    return [...direct, ...streamed];
  }

  #blasUs({ m, n, k }: { readonly m: number; readonly n: number; readonly k: number }, output: LinearOutput): number {
    const bytes = 2 * n * k;
    const count = Math.max(2, Math.min(48, Math.ceil(COLD_BYTES / bytes)));
    const wide = output === "f32" || output === "add";
    const plan = this.#blas.plan({ m, n, k, out: wide ? "f32" : "bf16", add: output === "add" });
    return Math.min(...Array.from({ length: plan.algorithms }, (_, algorithm) => {
      plan.choose(algorithm);
      return this.#us(
        count,
        (i) => plan.run(this.#stream, { a: this.#x.address, w: this.#pool.at(i * bytes), d: this.#out.address }),
      );
    }));
  }

  [Symbol.dispose](): void {
    this.#wide[Symbol.dispose]();
    this.#blas[Symbol.dispose]();
    this.context[Symbol.dispose]();
  }
}

function line({ name, dtype, tokens, kernel, us, plainUs, tbs, readUs, blasUs }: Row): string {
  const blas = blasUs === undefined ? "" : `  cuBLASLt ${blasUs.toFixed(2)} us, ${(blasUs / us).toFixed(2)} of ours`;
  return `${name.padEnd(24)} ${dtype.padEnd(4)} M ${String(tokens).padStart(2)}  ${kernel.padEnd(11)} ${
    us.toFixed(2).padStart(7)
  } us (plain ` +
    `${plainUs.toFixed(2)})  ${tbs.toFixed(2)} TB/s  read ${readUs.toFixed(2)} us, ${
      (readUs / us).toFixed(2)
    } of it${blas}`;
}

if (import.meta.main) {
  using bench = new Bench();
  const { name, driverVersion } = bench.context.properties;
  const ceiling = bench.ceiling();
  console.log(`${name}, CUDA ${driverVersion}: bulk read of 1 GiB at ${ceiling.toFixed(3)} TB/s`);
  const quick = Deno.args.includes("--quick");
  const rows: Row[] = [];
  for (const dtype of ["BF16", "Q4_0", "Q8_0", "Q4_1"] as const) {
    const counts = dtype !== "BF16" ? quick ? [1, 64] : [1, 4, 16, 64] : quick ? [1, 32, 64] : [1, 2, 4, 8, 16, 32, 64];
    for (const product of PRODUCTS) {
      for (const tokens of counts) {
        const row = bench.row(product, dtype, tokens);
        rows.push(row);
        console.log(line(row));
      }
    }
  }
  const json = Deno.args.indexOf("--json");
  if (json >= 0) {
    const record = { kernel: "linear_cuda", device: name, driverVersion, seed: SEEDS.bench, readTbs: ceiling, rows };
    Deno.writeTextFileSync(Deno.args[json + 1], JSON.stringify(record, null, 2) + "\n");
  }
}
