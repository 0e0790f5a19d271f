import { assert, assertEquals } from "@std/assert";
import type { DevicePtr } from "../../ffi/cuda/cuda.ts";
import { gpuTest, type TestGpu } from "../cuda/test_gpu.ts";
import type { AttentionPartial } from "../merge_partials/spec.ts";
import { AttendDecode, type DecodePlan } from "./attend_decode_cuda.ts";
import { AttendPlain } from "./attend_plain_cuda.ts";
import { PagedSequences, type PagedShape } from "./paged_sequences.ts";
import { shuffled } from "./test_data.ts";

/**
 * Bounds on o, values being within 1 of 0. The decode kernel rounds weights to f16, half an ulp of which is 2^-12 of each; the
 * plain one has f32 throughout. A bf16 result is rounded once more. Scores are sums of exact products in f32.
 */
const DECODE = { o: 2 ** -12 * 1.1, lse: 1e-6 } as const;
const PLAIN = { o: 2e-6, lse: 1e-6 } as const;
const BF16 = 2 ** -9 * 1.02;

interface Found {
  readonly o: Float32Array;
  readonly lse: Float32Array;
  readonly out?: Float32Array;
}

function assertClose(
  found: Found,
  index: number,
  { o, lse }: AttentionPartial,
  { name, bounds }: { readonly name: string; readonly bounds: typeof DECODE | typeof PLAIN },
): void {
  lse.forEach((wanted, h) => {
    const actual = found.lse[index * lse.length + h];
    const near = actual === wanted || Math.abs(actual - wanted) <= bounds.lse * (4 + Math.abs(wanted));
    assert(near, `${name}: lse[head ${h}]: wanted ${wanted}, got ${actual}`);
  });
  o.forEach((wanted, i) => {
    const place = `${name}: o[${i}] of ${o.length}`;
    const actual = found.o[index * o.length + i];
    assert(Math.abs(actual - wanted) <= bounds.o, `${place}: wanted ${wanted}, got ${actual}`);
    const short = found.out?.[index * o.length + i] ?? wanted;
    assert(Math.abs(short - wanted) <= bounds.o + BF16, `${place} as bf16: wanted ${wanted}, got ${short}`);
  });
}

/** The sequences on a GPU. */
class Bench {
  readonly gpu: TestGpu;
  readonly data: PagedSequences;
  readonly layer: { readonly layer: DevicePtr; readonly blockBytes: number };

  constructor(gpu: TestGpu, data: PagedSequences) {
    this.gpu = gpu;
    this.data = data;
    const pool = gpu.upload(data.bytes);
    this.layer = { layer: (pool + BigInt(data.layerAt)) as DevicePtr, blockBytes: data.pool.blockBytes };
  }

  /** Results of `count` rows, poisoned. */
  #rows(count: number) {
    const { heads, headDim } = this.data.shape;
    const values = count * heads * headDim;
    return {
      values,
      o: this.gpu.poisoned(4 * values),
      lse: this.gpu.poisoned(4 * count * heads),
      out: this.gpu.poisoned(2 * values),
    };
  }

  decode(plan: DecodePlan, chosen: readonly number[], level?: number): Required<Found> {
    const { gpu, data } = this;
    const { heads, headDim } = data.shape;
    const row = heads * headDim;
    const q = new Float32Array(chosen.length * row);
    chosen.forEach((sequence, i) => q.set(data.q.subarray(sequence * row, (sequence + 1) * row), i * row));
    const lengths = Int32Array.from(chosen, (sequence) => data.lengths[sequence]);
    const { tableWidth } = data;
    plan.sequences(gpu.stream, {
      count: chosen.length,
      lengths: gpu.upload(lengths),
      tables: gpu.upload(data.tables),
      tableWidth,
      rows: gpu.upload(Int32Array.from(chosen)),
    }, level);
    const { values, o, lse, out } = this.#rows(chosen.length);
    plan.attend(gpu.stream, { ...this.layer, q: gpu.uploadBf16(q), o, lse, out });
    return { o: gpu.f32(o, values), lse: gpu.f32(lse, chosen.length * heads), out: gpu.bf16(out, values) };
  }

  /** Partials of ranges, and whole sequences as bf16. */
  plain(): Required<Found> {
    const { gpu, data } = this;
    const kernel = new AttendPlain(gpu.kernels, data.shape);
    const count = data.lengths.length;
    const { values, o, lse, out } = this.#rows(count);
    const q = gpu.uploadBf16(data.q);
    const tables = gpu.upload(data.tables);
    const tasks = data.lengths.flatMap((length, i) => [i, i * data.tableWidth, 0, length, i]);
    const taskList = gpu.upload(Int32Array.from(tasks));
    kernel.attendTasks(gpu.stream, { ...this.layer, tasks: count, q, tables, taskList, o, lse });
    kernel.attendTokens(gpu.stream, {
      ...this.layer,
      tokens: count,
      q,
      tables,
      tableWidth: data.tableWidth,
      positions: gpu.upload(Int32Array.from(data.lengths, (length) => length - 1)),
      rows: gpu.upload(Int32Array.from(data.lengths, (_, i) => i)),
      out,
    });
    const { heads } = data.shape;
    return { o: gpu.f32(o, values), lse: gpu.f32(lse, count * heads), out: gpu.bf16(out, values) };
  }
}

const LENGTHS = [0, 1, 63, 64, 65, 255, 256, 257, 511, 513, 1000, 4096, 4097];
const SHAPES: readonly PagedShape[] = [
  { heads: 1, kvHeads: 1, headDim: 64, kvType: "fp8" },
  { heads: 9, kvHeads: 3, headDim: 64, kvType: "fp8" },
  { heads: 2, kvHeads: 2, headDim: 128, kvType: "fp8" },
  { heads: 8, kvHeads: 2, headDim: 128, kvType: "fp8" },
  { heads: 16, kvHeads: 1, headDim: 128, kvType: "fp8" },
  { heads: 6, kvHeads: 3, headDim: 80, kvType: "fp8" },
  { heads: 9, kvHeads: 1, headDim: 96, kvType: "fp8" },
  { heads: 3, kvHeads: 1, headDim: 20, kvType: "fp8" },
  { heads: 10, kvHeads: 2, headDim: 192, kvType: "fp8" },
  { heads: 16, kvHeads: 1, headDim: 256, kvType: "fp8" },
];

for (const shape of SHAPES) {
  const { heads, kvHeads, headDim } = shape;
  const what = `over fp8 agree with the reference at ${heads}/${kvHeads} heads of ${headDim}, with NaN around`;
  gpuTest(`AttendPlain and AttendDecode ${what}`, (gpu) => {
    const data = new PagedSequences(shape, LENGTHS);
    const bench = new Bench(gpu, data);
    const kernel = new AttendDecode(gpu.context, gpu.kernels, shape);
    using plan = kernel.plan(LENGTHS.length);
    const [plain, decode] = [bench.plain(), bench.decode(plan, LENGTHS.map((_, i) => i))];
    LENGTHS.forEach((length, i) => {
      const reference = data.reference(i, i);
      assertClose(plain, i, reference, { name: `plain, ${length} tokens`, bounds: PLAIN });
      assertClose(decode, i, reference, { name: `decode, ${length} tokens`, bounds: DECODE });
    });
  });
}

gpuTest("AttendDecode over fp8 gives a sequence the same bits in every batch, cut and order", (gpu) => {
  for (const headDim of [64, 128]) {
    const lengths = [4097, 0, 64, 1, 2500, 700, 300, 129];
    const shape = { heads: 12, kvHeads: 3, headDim, kvType: "fp8" } as const;
    const bench = new Bench(gpu, new PagedSequences(shape, lengths));
    using plan = new AttendDecode(gpu.context, gpu.kernels, shape).plan(64);
    const row = 12 * headDim;
    const alone = lengths.map((_, i) => bench.decode(plan, [i]));
    for (const level of [undefined, 0, 1, 2, 3, 5, 12]) {
      const order = [...shuffled(lengths.length, level ?? 99), ...Array.from({ length: 50 }, (_, i) => i % 8)];
      const { o, lse } = bench.decode(plan, order, level);
      order.forEach((sequence, i) => {
        const name = `heads of ${headDim}, level ${level}, row ${i}, sequence ${sequence}`;
        assertEquals(o.slice(i * row, (i + 1) * row), alone[sequence].o, name);
        assertEquals(lse.slice(i * 12, (i + 1) * 12), alone[sequence].lse, name);
      });
    }
  }
});

gpuTest("AttendDecode over fp8 takes queries of any size and shows NaN in its head alone", (gpu) => {
  const data = new PagedSequences({ heads: 4, kvHeads: 2, headDim: 64, kvType: "fp8" }, [300, 100]);
  // One head tiny, one huge beside a tiny value, one NaN.
  data.q.subarray(0, 64).forEach((value, i, q) => q[i] = value * 2 ** -100);
  data.q.subarray(64, 128).forEach((value, i, q) => q[i] = i === 3 ? 2 ** 10 : value * 2 ** -6);
  data.q[2 * 64 + 7] = NaN;
  const bench = new Bench(gpu, data);
  using plan = new AttendDecode(gpu.context, gpu.kernels, data.shape).plan(2);
  const found = bench.decode(plan, [0, 1]);
  const reference = data.reference(0, 0);
  for (let head = 0; head < 4; head++) {
    const o = found.o.subarray(head * 64, (head + 1) * 64);
    if (head === 2) {
      assert(o.every(Number.isNaN) && Number.isNaN(found.lse[head]));
      continue;
    }
    o.forEach((value, d) => {
      const wanted = reference.o[head * 64 + d];
      assert(Math.abs(value - wanted) <= DECODE.o, `head ${head}, ${d}: wanted ${wanted}, got ${value}`);
    });
  }
  assertClose(found, 1, data.reference(1, 1), { name: "the other sequence", bounds: DECODE });
});
