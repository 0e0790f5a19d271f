/**
 * Times decode attention of one layer on the GPU, from cold memory: launches back to back in a graph, each over another layer
 * of the pool, beside a read of the same size and the read ceiling of the same run.
 *
 * `deno run -A kernels/attend_partial/attend_decode_cuda_bench.ts [--levels] [--json FILE]`; `--levels` also prints the times
 * of forced cuts, from which the constants of `attend_decode_plan.cu` come.
 *
 * @module
 */
import { CudaContext, type CudaFunction, type CudaStream, type DeviceBuffer } from "../../ffi/cuda/cuda.ts";
import { KernelCache } from "../cuda/cuda.ts";
import { KV_ELEMENT_BYTES } from "../dtype.ts";
import { PoolLayout } from "../kv_copy/pool_layout.ts";
import { AttendDecode, type DecodeLayer } from "./attend_decode_cuda.ts";
import type { AttendPlainShape } from "./attend_plain_cuda.ts";
import readSource from "./bulk_read.cu" with { type: "text" };
import { SEEDS } from "./spec.ts";
import { shuffled } from "./test_data.ts";

/** Bytes of one piece of the read ceiling, and pieces in flight on a multiprocessor. */
const CHUNK = 32768;
const CHUNKS = 6;
/** Memory that pools lie in; everything is read from here. */
const POOL_BYTES = 16 * 2 ** 30;
/** Replays of a graph; the first is not counted. */
const REPLAYS = 8;
const PAGE = 64;

const K = 1024;
const CONTEXTS: Readonly<Record<string, readonly number[]>> = {
  "1 x 128": [128],
  "1 x 1K": [K],
  "1 x 8K": [8 * K],
  "1 x 32K": [32 * K],
  "1 x 128K": [128 * K],
  "1 x 1,000,000": [1_000_000],
  "32 x 4K": repeat(32, 4 * K),
  "64 x 4K": repeat(64, 4 * K),
  "1 x 128K + 31 x 4K": [128 * K, ...repeat(31, 4 * K)],
};

const SHAPES: readonly AttendPlainShape[] = [
  { heads: 32, kvHeads: 32, headDim: 128 },
  { heads: 32, kvHeads: 8, headDim: 128 },
  { heads: 64, kvHeads: 8, headDim: 128 },
  { heads: 9, kvHeads: 3, headDim: 64 },
  { heads: 32, kvHeads: 32, headDim: 128, kvType: "fp8" },
  { heads: 32, kvHeads: 8, headDim: 128, kvType: "fp8" },
  { heads: 9, kvHeads: 3, headDim: 64, kvType: "fp8" },
];

/** One measurement. */
interface Row {
  readonly name: string;
  /** Level of the cut that was forced; undefined for the plan's own. */
  readonly level?: number;
  /** Median time of a launch, microseconds. */
  readonly us: number;
  /** KV bytes over time, TB/s. */
  readonly tbs: number;
  /** `tbs` as a share of the read ceiling. */
  readonly share: number;
  /** Time of a bulk read of as many bytes, microseconds. */
  readonly readUs: number;
}

function repeat(count: number, tokens: number): number[] {
  return new Array<number>(count).fill(tokens);
}

/** Runs launches in a graph and times them. */
class Timer implements Disposable {
  readonly #context: CudaContext;
  readonly #stream: CudaStream;

  constructor(context: CudaContext, stream: CudaStream) {
    this.#context = context;
    this.#stream = stream;
  }

  /** Median microseconds of one of `count` launches. */
  us(count: number, launch: (index: number) => void): number {
    using graph = this.#stream.capture(() => {
      for (let i = 0; i < count; i++) launch(i);
    });
    using start = this.#context.event({ timing: true });
    using end = this.#context.event({ timing: true });
    const times: number[] = [];
    for (let replay = 0; replay < REPLAYS; replay++) {
      this.#stream.record(start);
      graph.launch(this.#stream);
      this.#stream.record(end);
      end.synchronize();
      if (replay > 0) times.push(end.msSince(start) * 1000 / count);
    }
    return times.sort((a, b) => a - b)[times.length >> 1];
  }

  [Symbol.dispose](): void {
    this.#stream[Symbol.dispose]();
  }
}

/** The GPU with its read ceiling. */
class Bench implements Disposable {
  readonly context: CudaContext;
  readonly #stream: CudaStream;
  readonly #timer: Timer;
  readonly #kernels: KernelCache;
  readonly #read: CudaFunction;
  readonly #pool: DeviceBuffer;
  /** TB/s. */
  readonly ceiling: number;

  constructor() {
    this.context = CudaContext.open();
    this.#stream = this.context.stream();
    this.#timer = new Timer(this.context, this.#stream);
    this.#kernels = KernelCache.open(this.context);
    const module = this.#kernels.module({
      name: "bulk_read",
      source: readSource,
      defines: { CHUNK, STAGES: CHUNKS },
    });
    this.#read = module.function("bulk_read");
    this.#read.setSharedBytes(CHUNK * CHUNKS);
    this.#pool = this.context.alloc(POOL_BYTES);
    this.#fill();
    const bytes = POOL_BYTES / 4;
    this.ceiling = bytes / this.readUs(bytes, 4) / 1e6;
  }

  /** Random bf16 of about one, whose bytes are numbers of fp8 too, doubled until memory is full. */
  #fill(): void {
    const part = new Uint16Array(2 ** 23);
    let state: number = SEEDS.bench;
    for (let i = 0; i < part.length; i++) {
      state = Math.imul(state, 1664525) + 1013904223 | 0;
      part[i] = 0x3f00 | state >>> 16 & 0x80bf;
    }
    this.#stream.copyToDevice(this.#pool.address, new Uint8Array(part.buffer));
    for (let done = part.byteLength; done < POOL_BYTES; done *= 2) {
      this.#stream.copy(this.#pool.at(done), this.#pool.address, done);
    }
    this.#stream.synchronize();
  }

  /** Time of one of `count` bulk reads of `bytes` bytes, rounded down to whole chunks, each of other memory. */
  readUs(bytes: number, count: number): number {
    const pieces = Math.max(1, Math.floor(bytes / CHUNK));
    const places = Math.floor(POOL_BYTES / (pieces * CHUNK));
    return this.#timer.us(count, (i) =>
      this.#stream.launch(this.#read, {
        grid: [this.context.properties.multiprocessors],
        block: [32],
        sharedBytes: CHUNK * CHUNKS,
        args: [{ ptr: this.#pool.at(i % places * pieces * CHUNK) }, { u64: BigInt(pieces) }],
      }));
  }

  /** Times one shape and context, cut as planned and at the forced levels. */
  rows(shape: AttendPlainShape, context: string, levels: readonly number[]): Row[] {
    const lengths = CONTEXTS[context];
    const pages = lengths.map((length) => Math.ceil(length / PAGE));
    const blocks = pages.reduce((sum, count) => sum + count, 0);
    const { heads, kvHeads, headDim, kvType = "bf16" } = shape;
    const { layerBytes } = new PoolLayout({ layers: 1, kvHeads, headDim, kvType });
    const layers = Math.min(64, Math.floor(POOL_BYTES / (blocks * layerBytes)));
    if (layers < 2) return [];
    using stack = new DisposableStack();
    const tableWidth = Math.max(...pages);
    const order = shuffled(blocks, SEEDS.bench);
    const tables = new Int32Array(lengths.length * tableWidth);
    pages.forEach((count, row) => tables.set(order.splice(0, count), row * tableWidth));
    const upload = (values: Int32Array): DeviceBuffer => {
      const buffer = stack.use(this.context.alloc(values.byteLength));
      this.#stream.copyToDevice(buffer.address, new Uint8Array(values.buffer).slice());
      return buffer;
    };
    const results = stack.use(this.context.alloc(2 * lengths.length * shape.heads * shape.headDim));
    const kernel = new AttendDecode(this.context, this.#kernels, shape);
    const plan = stack.use(kernel.plan(lengths.length));
    const work = {
      count: lengths.length,
      lengths: upload(Int32Array.from(lengths)).address,
      tables: upload(tables).address,
      tableWidth,
    };
    const tokens = lengths.reduce((sum, length) => sum + length, 0);
    const bytes = tokens * kvHeads * headDim * 2 * KV_ELEMENT_BYTES[kvType];
    const count = Math.max(4, Math.min(64, Math.floor(6e10 / bytes)));
    const readUs = this.readUs(bytes, count);
    const name = `${heads}/${kvHeads} heads of ${headDim}${kvType === "fp8" ? " in fp8" : ""}, ${context}`;
    return [undefined, ...levels].map((level) => {
      plan.sequences(this.#stream, work, level);
      const us = this.#timer.us(count, (i) => {
        const layer: DecodeLayer = {
          layer: this.#pool.at(i % layers * layerBytes),
          blockBytes: layers * layerBytes,
          q: this.#pool.address,
          out: results.address,
        };
        plan.attend(this.#stream, layer);
      });
      const tbs = bytes / us / 1e6;
      return { name, level, us, tbs, share: tbs / this.ceiling, readUs };
    });
  }

  [Symbol.dispose](): void {
    this.#pool[Symbol.dispose]();
    this.#timer[Symbol.dispose]();
    this.context[Symbol.dispose]();
  }
}

if (import.meta.main) {
  using bench = new Bench();
  const { name: device } = bench.context.properties;
  console.log(`${device}: read ceiling ${bench.ceiling.toFixed(3)} TB/s`);
  const levels = Deno.args.includes("--levels") ? [0, 1, 2, 3, 4, 5, 6, 7, 8] : [];
  const rows = SHAPES.flatMap((shape) =>
    Object.keys(CONTEXTS).flatMap((context) => bench.rows(shape, context, levels))
  );
  for (const { name, level, us, tbs, share, readUs } of rows) {
    const cut = level === undefined ? "" : `, level ${level}`;
    console.log(
      `${(name + cut).padEnd(56)} ${us.toFixed(1).padStart(8)} us ${tbs.toFixed(3)} TB/s ${
        share.toFixed(3)
      } of the ceiling, ` +
        `${(readUs / us).toFixed(2)} of a read`,
    );
  }
  const json = Deno.args.indexOf("--json");
  if (json >= 0) {
    const record = { kernel: "attend_decode", device, seed: SEEDS.bench, readTbs: bench.ceiling, rows };
    await Deno.writeTextFile(Deno.args[json + 1], JSON.stringify(record, null, 2) + "\n");
  }
}
