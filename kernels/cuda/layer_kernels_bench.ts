/**
 * Times the small kernels of a step on GPU 0, each as one of many launches of a graph: with plain edges, and with edges that
 * let a launch begin before its predecessor has ended.
 *
 * `deno run -A kernels/cuda/layer_kernels_bench.ts [name ...] [--json FILE]`: the kernels whose names contain one of these words,
 * or all.
 *
 * @module
 */
import type { CudaStream, DevicePtr } from "../../ffi/cuda/cuda.ts";
import { randomValues } from "../attend_partial/test_data.ts";
import { EmbedKernel } from "../embed/embed_cuda.ts";
import { KvCopyKernels } from "../kv_copy/kv_copy_cuda.ts";
import { PoolLayout } from "../kv_copy/pool_layout.ts";
import { LogitsKernel } from "../logits/logits_cuda.ts";
import { RmsnormKernel } from "../rmsnorm/rmsnorm_cuda.ts";
import { RopeKernels } from "../rope/rope_cuda.ts";
import { SAMPLE_STATE_BYTES, SampleKernel } from "../sample/sample_cuda.ts";
import { sampleRingBytes } from "../sample/sample_ring.ts";
import { SAMPLE_ROW_BYTES, writeSampleRow } from "../sample/sample_rows.ts";
import { SwigluKernel } from "../swiglu/swiglu_cuda.ts";
import { TestGpu } from "./test_gpu.ts";

/** Launches of one graph. */
const LAUNCHES = 40;
/** Graphs timed of each kind; the median counts. */
const REPEATS = 15;
/** Seed of the inputs. */
const SEED = 7;

/** A logit of 25. */
const PEAK: Uint8Array = new Uint8Array(Float32Array.of(25).buffer);

/** Sizes of a model. */
interface Shape {
  readonly name: string;
  readonly hidden: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly intermediate: number;
  readonly vocab: number;
}

/** The 8B shape and that of SmolLM2-135M. */
const SHAPES: readonly Shape[] = [
  { name: "8B", hidden: 4096, heads: 32, kvHeads: 8, headDim: 128, intermediate: 14336, vocab: 128256 },
  { name: "135M", hidden: 576, heads: 9, kvHeads: 3, headDim: 64, intermediate: 1536, vocab: 49152 },
];

/** One kernel at one size. */
interface Item {
  readonly name: string;
  /** Bytes read and written. */
  readonly bytes: number;
  launch(stream: CudaStream, programmatic: boolean): void;
}

/** One measurement. */
interface Row {
  readonly name: string;
  /** Microseconds a launch, plain edges. */
  readonly us: number;
  /** The same with programmatic edges. */
  readonly overlappedUs: number;
  /** Bytes over the shorter time, GB/s. */
  readonly gbs: number;
}

function items(gpu: TestGpu, shape: Shape, tokens: number): Item[] {
  const { hidden, heads, kvHeads, headDim, intermediate, vocab } = shape;
  const { kernels } = gpu;
  const label = (name: string, rows = tokens) => `${shape.name} ${name} x ${rows}`;
  const count = gpu.word(tokens);
  // A small value in both types: what is moved does not depend on it.
  const filled = (bytes: number) => {
    const address = gpu.poisoned(bytes);
    gpu.stream.fill(address, 0x3c, bytes);
    return address;
  };
  const random = (length: number) => {
    const some = randomValues(Math.min(length, 1 << 20), SEED, 8);
    return gpu.upload(Float32Array.from({ length }, (_, i) => some[i % some.length]));
  };
  const width = (heads + 2 * kvHeads) * headDim;
  const [x, h, qkv, q] = [4 * hidden, 2 * hidden, 2 * width, 2 * heads * headDim].map((bytes) =>
    filled(tokens * bytes)
  );
  const embed = new EmbedKernel(kernels, { hidden, vocab });
  const ids = gpu.upload(Int32Array.from({ length: tokens }, (_, i) => i * 7919 % vocab));
  const table = filled(2 * vocab * hidden);
  const norm = new RmsnormKernel(kernels, { hidden, eps: 1e-5 });
  const w = filled(4 * hidden);
  const pairs = headDim / 2;
  const rope = new RopeKernels(kernels, { heads, kvHeads, headDim, pairs, pairing: "halves", input: "bf16" });
  const layout = new PoolLayout({ layers: 1, kvHeads, headDim });
  const blocks = Math.ceil(tokens / 64) + 1;
  const maxBlocks = blocks;
  const tables = gpu.upload(Int32Array.from({ length: blocks }, (_, i) => i));
  const positions = gpu.upload(Uint32Array.from({ length: tokens }, (_, i) => i));
  const sequences = gpu.zeroed(4 * tokens);
  const inverseFrequencies = gpu.upload(Float64Array.from({ length: pairs }, (_, i) => 5e5 ** (-i / pairs)));
  const turns = gpu.poisoned(8 * tokens * pairs);
  const pool = gpu.zeroed(blocks * layout.blockBytes);
  const swiglu = new SwigluKernel(kernels, { intermediate, input: "bf16" });
  const [gateUp, act] = [filled(tokens * 4 * intermediate), filled(tokens * 2 * intermediate)];
  const all: Item[] = [
    {
      name: label("embed"),
      bytes: 6 * tokens * hidden,
      launch: (stream, programmatic) => embed.launch(stream, { ids, count, table, x, tokens, programmatic }),
    },
    {
      name: label("rmsnorm"),
      bytes: 6 * tokens * hidden,
      launch: (stream, programmatic) =>
        norm.launch(stream, { x, inputRows: tokens, w, count, y: h, outputRows: tokens, programmatic }),
    },
    {
      name: label("rope_table"),
      bytes: 8 * tokens * pairs,
      launch: (stream, programmatic) =>
        rope.makeTable(stream, { positions, count, inverseFrequencies, turns, tokens, programmatic }),
    },
    {
      name: label("rope_append"),
      bytes: 4 * tokens * width,
      launch: (stream, programmatic) =>
        rope.append(stream, {
          qkv,
          turns,
          positions,
          sequences,
          tables,
          maxBlocks,
          count,
          q,
          pool,
          blockBytes: layout.blockBytes,
          blocks,
          tokens,
          programmatic,
        }),
    },
    {
      name: label("swiglu"),
      bytes: 6 * tokens * intermediate,
      launch: (stream, programmatic) => swiglu.launch(stream, { gateUp, count, y: act, tokens, programmatic }),
    },
  ];
  const rows = Math.min(tokens, 256);
  if (rows < tokens) return all;
  const logits = new LogitsKernel(kernels, { vocab, input: "f32", maxRows: rows });
  const sample = new SampleKernel(kernels, { vocab, input: "f32" });
  const scratch = gpu.zeroed(logits.scratchBytes);
  const [lse, names, top] = [4, 256, 256].map((bytes) => gpu.poisoned(rows * bytes));
  const values = random(rows * vocab);
  // Each row has a token that outweighs the rest, as rows of a model do.
  for (let r = 0; r < rows; r++) gpu.stream.copyToDevice(at(values, 4 * (r * vocab + r * 997 % vocab)), PEAK);
  // At temperature 20 no candidate outweighs the rest: every row needs all its logits.
  const [sampled, flat] = [1.25, 0.05].map((inverseTemperature) => {
    const params = new Uint8Array(rows * SAMPLE_ROW_BYTES);
    for (let r = 0; r < rows; r++) {
      writeSampleRow(params.subarray(r * SAMPLE_ROW_BYTES, (r + 1) * SAMPLE_ROW_BYTES), {
        mode: { kind: "draw", inverseTemperature, topK: Infinity, topP: 0.9, depth: Infinity, seed: r },
        accepted: 0,
        slot: r,
      });
    }
    return gpu.upload(params);
  });
  const state = gpu.zeroed(SAMPLE_STATE_BYTES);
  const ringSize = { slots: 4, rows };
  const ring = gpu.pinned(sampleRingBytes(ringSize)).address;
  return [
    ...all,
    {
      name: label("logits"),
      bytes: 4 * rows * vocab,
      launch: (stream, programmatic) =>
        logits.launch(stream, { logits: values, count, scratch, lse, ids: names, top, rows, programmatic }),
    },
    ...[
      { name: "sample", rows: sampled },
      { name: "sample from all", rows: flat },
    ].map((kind): Item => ({
      name: label(kind.name),
      bytes: rows * 600,
      launch: (stream, programmatic) =>
        sample.launch(stream, {
          rows: kind.rows,
          logits: values,
          lse,
          ids: names,
          top,
          count,
          tokens: ids,
          inputTokens: tokens,
          state,
          ring,
          ringSize,
          maxRows: rows,
          programmatic,
        }),
    })),
  ];
}

function at(address: DevicePtr, bytes: number): DevicePtr {
  return address + BigInt(bytes) as DevicePtr;
}

/** A block of all layers, to device memory and to the host. */
function copies(gpu: TestGpu, storedTokens: number): Item[] {
  const shape = { layers: 32, kvHeads: 8, headDim: 128, storedTokens };
  const kernels = new KvCopyKernels(gpu.kernels, shape);
  const block = gpu.zeroed(new PoolLayout(shape).blockBytes);
  const device = gpu.zeroed(kernels.storedBytes);
  const host = gpu.pinned(kernels.storedBytes).address;
  const bytes = 2 * kernels.storedBytes;
  const item = (name: string, launch: Item["launch"]): Item => ({
    name: `8B ${name} of ${storedTokens}`,
    bytes,
    launch,
  });
  return [
    item("kv_export", (stream) => kernels.exportBlock(stream, { block, stored: device })),
    item("kv_import", (stream) => kernels.importBlock(stream, { block, stored: device })),
    item("kv_export to the host", (stream) => kernels.exportBlock(stream, { block, stored: host })),
    item("kv_import from the host", (stream) => kernels.importBlock(stream, { block, stored: host })),
  ];
}

function microseconds(gpu: TestGpu, item: Item, programmatic: boolean): number {
  using graph = gpu.stream.capture(() => {
    for (let i = 0; i < LAUNCHES; i++) item.launch(gpu.stream, programmatic);
  });
  using start = gpu.context.event({ timing: true });
  using end = gpu.context.event({ timing: true });
  graph.launch(gpu.stream);
  const times = Array.from({ length: REPEATS }, () => {
    gpu.stream.record(start);
    graph.launch(gpu.stream);
    gpu.stream.record(end);
    end.synchronize();
    return end.msSince(start) * 1000 / LAUNCHES;
  });
  return times.sort((a, b) => a - b)[REPEATS >> 1];
}

function measure(gpu: TestGpu, item: Item): Row {
  const [us, overlappedUs] = [false, true].map((programmatic) => microseconds(gpu, item, programmatic));
  return { name: item.name, us, overlappedUs, gbs: item.bytes / Math.min(us, overlappedUs) / 1000 };
}

const missing = TestGpu.missing();
if (import.meta.main && missing !== undefined) console.log(`Not timed: ${missing}`);
if (import.meta.main && missing === undefined) {
  const json = Deno.args.indexOf("--json");
  const words = json < 0 ? Deno.args : Deno.args.filter((_, i) => i !== json && i !== json + 1);
  const rows: Row[] = [];
  const run = (make: (gpu: TestGpu) => Item[]) => {
    using gpu = new TestGpu();
    for (const item of make(gpu)) {
      if (words.length > 0 && !words.some((word) => item.name.includes(word))) continue;
      const row = measure(gpu, item);
      rows.push(row);
      console.log(
        row.name.padEnd(34) +
          ` ${row.us.toFixed(2).padStart(9)} us  overlapped ${row.overlappedUs.toFixed(2).padStart(9)}` +
          ` us ${row.gbs.toFixed(0).padStart(7)} GB/s`,
      );
    }
  };
  for (const shape of SHAPES) {
    for (const tokens of [1, 32, 128, 8192]) run((gpu) => items(gpu, shape, tokens));
  }
  for (const storedTokens of [16, 64]) run((gpu) => copies(gpu, storedTokens));
  if (json >= 0) {
    using gpu = new TestGpu();
    const { name: device, driverVersion } = gpu.context.properties;
    const record = { kernel: "layer kernels", device, driverVersion, seed: SEED, launches: LAUNCHES, rows };
    await Deno.writeTextFile(Deno.args[json + 1], JSON.stringify(record, null, 2) + "\n");
  }
}
