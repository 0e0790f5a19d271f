import { assert, assertEquals, assertThrows } from "@std/assert";
import { gpuTest, type TestGpu } from "../cuda/test_gpu.ts";
import { PoolLayout } from "../kv_copy/pool_layout.ts";
import type { AttentionPartial } from "../merge_partials/spec.ts";
import { AttendDecode, type DecodePlan } from "./attend_decode_cuda.ts";
import { DecodeLayout } from "./decode_layout.ts";
import { attendPartialReference } from "./reference.ts";
import { SEEDS } from "./spec.ts";
import { randomValues, shuffled } from "./test_data.ts";

const PAGE = 64;
const NAN_BITS = 0x7fff;
/** A block id that faults when it is used. */
const HOSTILE = 0x7ffffff0;

/**
 * Weights are rounded to bf16 before they meet the values: half an ulp, 2^-9, of each, hence at most that of max |v| in o. A
 * bf16 result is rounded once more. Scores and sums are f32, those of the tensor cores with rounding towards zero.
 */
const TOLERANCE = { o: 2 ** -9 * 1.02, out: 2 ** -8 * 1.02, lse: 1e-6 } as const;

interface Shape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

/** Sequences in a pool whose other memory is NaN and whose tables name no other block. */
class Sequences {
  readonly shape: Shape;
  readonly lengths: readonly number[];
  readonly pool: PoolLayout;
  readonly tableWidth: number;
  readonly q: Float32Array;
  readonly tables: Int32Array;
  readonly #keys: readonly Float32Array[];
  readonly #values: readonly Float32Array[];
  readonly bits: Uint16Array;

  constructor(shape: Shape, lengths: readonly number[], seed: number = SEEDS.test) {
    const { heads, kvHeads, headDim } = shape;
    this.shape = shape;
    this.lengths = lengths;
    this.pool = new PoolLayout({ layers: 2, kvHeads, headDim });
    const pages = lengths.map((length) => Math.ceil(length / PAGE));
    const blocks = pages.reduce((sum, count) => sum + count, 1);
    const order = shuffled(blocks, seed);
    this.tableWidth = Math.max(...pages) + 3;
    this.tables = new Int32Array(lengths.length * this.tableWidth).fill(HOSTILE);
    this.q = rounded(randomValues(lengths.length * heads * headDim, seed + 1, 3));
    const width = kvHeads * headDim;
    this.#keys = lengths.map((length, i) => rounded(randomValues(length * width, seed + 2 + 2 * i, 1)));
    this.#values = lengths.map((length, i) => rounded(randomValues(length * width, seed + 3 + 2 * i, 1)));
    this.bits = new Uint16Array(blocks * this.pool.blockBytes / 2).fill(NAN_BITS);
    let used = 0;
    lengths.forEach((length, sequence) => {
      for (let page = 0; page < pages[sequence]; page++) {
        const block = order[used++];
        this.tables[sequence * this.tableWidth + page] = block;
        this.#fill(block, sequence, page * PAGE, Math.min(length - page * PAGE, PAGE));
      }
    });
  }

  /** Layer 1 of the pool holds the values. */
  #fill(block: number, sequence: number, first: number, count: number): void {
    const { kvHeads, headDim } = this.shape;
    for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
      for (const value of [false, true]) {
        const source = bf16(
          (value ? this.#values[sequence] : this.#keys[sequence]).subarray(
            first * kvHeads * headDim,
            (first + count) * kvHeads * headDim,
          ),
        );
        for (let slot = 0; slot < count; slot++) {
          const row = (slot * kvHeads + kvHead) * headDim;
          for (let dim = 0; dim < this.pool.paddedDim; dim += 8) {
            const at = block * this.pool.blockBytes + this.pool.offset({ layer: 1, kvHead, value, slot, dim });
            // Eight dimensions lie together; those behind the head's width are zero.
            const end = Math.min(dim + 8, headDim);
            this.bits.fill(0, at / 2, at / 2 + 8);
            this.bits.set(
              source.subarray(row + Math.min(dim, headDim), row + Math.max(end, Math.min(dim, headDim))),
              at / 2,
            );
          }
        }
      }
    }
  }

  /** Query `row` over tokens [from, to) of a sequence, in f64. */
  reference(row: number, sequence: number, from = 0, to = this.lengths[sequence]): AttentionPartial {
    const { heads, kvHeads, headDim } = this.shape;
    const slice = (tensor: Float32Array) => tensor.subarray(from * kvHeads * headDim, to * kvHeads * headDim);
    return attendPartialReference({
      ...this.shape,
      q: this.q.subarray(row * heads * headDim, (row + 1) * heads * headDim),
      k: slice(this.#keys[sequence]),
      v: slice(this.#values[sequence]),
    });
  }
}

/** The sequences on the GPU, and rows of results. */
class Bench {
  readonly gpu: TestGpu;
  readonly data: Sequences;
  readonly kernel: AttendDecode;
  readonly layer: { readonly layer: bigint & { readonly brand: "DevicePtr" }; readonly blockBytes: number };
  readonly q: bigint & { readonly brand: "DevicePtr" };

  constructor(gpu: TestGpu, data: Sequences) {
    this.gpu = gpu;
    this.data = data;
    this.kernel = new AttendDecode(gpu.context, gpu.kernels, data.shape);
    const pool = gpu.upload(data.bits);
    const layer = pool + BigInt(data.pool.layerBytes) as typeof pool;
    this.layer = { layer, blockBytes: data.pool.blockBytes };
    this.q = gpu.upload(bf16(data.q));
  }

  /** Attends the named sequences in one launch; row r of the result is that of `chosen[r]`. */
  attend(chosen: readonly number[], { level, plan }: { level?: number; plan?: DecodePlan } = {}): Rows {
    const { gpu, data, kernel } = this;
    const { heads, headDim } = data.shape;
    const row = heads * headDim;
    const q = new Float32Array(chosen.length * row);
    const tables = new Int32Array(chosen.length * data.tableWidth);
    chosen.forEach((sequence, i) => {
      q.set(data.q.subarray(sequence * row, (sequence + 1) * row), i * row);
      tables.set(
        data.tables.subarray(sequence * data.tableWidth, (sequence + 1) * data.tableWidth),
        i * data.tableWidth,
      );
    });
    using own = plan === undefined ? kernel.plan(chosen.length) : undefined;
    const used = plan ?? own;
    assert(used !== undefined);
    const lengths = gpu.upload(Int32Array.from(chosen, (sequence) => data.lengths[sequence]));
    const work = { count: chosen.length, lengths, tables: gpu.upload(tables), tableWidth: data.tableWidth };
    used.sequences(gpu.stream, work, level);
    const rows = new Rows(gpu, chosen.length, data.shape);
    used.attend(gpu.stream, { ...this.layer, q: gpu.upload(bf16(q)), ...rows.places });
    rows.read();
    return rows;
  }
}

/** Results of a launch. */
class Rows {
  readonly places;
  readonly count: number;
  o = new Float32Array();
  out = new Float32Array();
  lse = new Float32Array();
  readonly #gpu: TestGpu;
  readonly #shape: Shape;

  constructor(gpu: TestGpu, count: number, shape: Shape) {
    this.#gpu = gpu;
    this.#shape = shape;
    this.count = count;
    const values = count * shape.heads * shape.headDim;
    this.places = {
      out: gpu.poisoned(2 * values),
      o: gpu.poisoned(4 * values),
      lse: gpu.poisoned(4 * count * shape.heads),
    };
  }

  read(): void {
    const values = this.count * this.#shape.heads * this.#shape.headDim;
    this.out = this.#gpu.bf16(this.places.out, values);
    this.o = this.#gpu.f32(this.places.o, values);
    this.lse = this.#gpu.f32(this.places.lse, this.count * this.#shape.heads);
  }

  /** Row `index`, as bits. */
  bits(index: number): readonly Uint8Array[] {
    const { heads, headDim } = this.#shape;
    const [row, head] = [heads * headDim, heads];
    return [
      this.o.slice(index * row, (index + 1) * row),
      this.out.slice(index * row, (index + 1) * row),
      this.lse.slice(index * head, (index + 1) * head),
    ].map(({ buffer }) => new Uint8Array(buffer));
  }
}

/** Bits of the bf16 nearest to each value; NaN keeps to NaN. */
function bf16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const words = new Uint32Array(values.slice().buffer);
  return Uint16Array.from(
    words,
    (word, i) => Number.isNaN(values[i]) ? NAN_BITS : (word + 0x7fff + (word >>> 16 & 1)) >>> 16,
  );
}

/** Each value rounded to bf16. */
function rounded(values: Float32Array): Float32Array<ArrayBuffer> {
  return new Float32Array(Uint32Array.from(bf16(values), (bits) => bits << 16).buffer);
}

function assertClose(rows: Rows, index: number, { o, lse }: AttentionPartial, name: string): void {
  lse.forEach((wanted, h) => {
    const actual = rows.lse[index * lse.length + h];
    const near = actual === wanted || Math.abs(actual - wanted) <= TOLERANCE.lse * (4 + Math.abs(wanted));
    assert(near, `${name}: lse[head ${h}]: wanted ${wanted}, got ${actual}`);
  });
  o.forEach((wanted, i) => {
    const place = `${name}: o[${i}] of ${o.length}`;
    const [exact, short] = [rows.o[index * o.length + i], rows.out[index * o.length + i]];
    assert(Math.abs(exact - wanted) <= TOLERANCE.o, `${place}: wanted ${wanted}, got ${exact}`);
    assert(Math.abs(short - wanted) <= TOLERANCE.out, `${place} as bf16: wanted ${wanted}, got ${short}`);
  });
}

const LENGTHS = [0, 1, 63, 64, 65, 255, 256, 257, 511, 513, 1000, 4096, 4097];
const SHAPES: readonly Shape[] = [
  { heads: 1, kvHeads: 1, headDim: 64 },
  { heads: 9, kvHeads: 3, headDim: 64 },
  { heads: 2, kvHeads: 2, headDim: 128 },
  { heads: 8, kvHeads: 2, headDim: 128 },
  { heads: 16, kvHeads: 2, headDim: 128 },
  { heads: 16, kvHeads: 1, headDim: 128 },
  { heads: 6, kvHeads: 3, headDim: 80 },
  { heads: 9, kvHeads: 1, headDim: 96 },
  { heads: 10, kvHeads: 2, headDim: 192 },
  { heads: 8, kvHeads: 2, headDim: 256 },
  { heads: 16, kvHeads: 1, headDim: 256 },
];

for (const shape of SHAPES) {
  const { heads, kvHeads, headDim } = shape;
  gpuTest(
    `AttendDecode agrees with the reference at ${heads}/${kvHeads} heads of ${headDim}, with NaN around`,
    (gpu) => {
      const data = new Sequences(shape, LENGTHS);
      const rows = new Bench(gpu, data).attend(LENGTHS.map((_, i) => i));
      LENGTHS.forEach((length, i) => assertClose(rows, i, data.reference(i, i), `${length} tokens`));
    },
  );
}

gpuTest("AttendDecode gives a sequence the same bits in every batch, cut and order", (gpu) => {
  const lengths = [4097, 0, 64, 1, 2500, 700, 300, 129];
  const bench = new Bench(gpu, new Sequences({ heads: 12, kvHeads: 3, headDim: 128 }, lengths));
  const alone = lengths.map((_, i) => bench.attend([i]).bits(0));
  using plan = bench.kernel.plan(64);
  for (const level of [undefined, 0, 1, 2, 3, 4, 5, 6, 12]) {
    const order = shuffled(lengths.length, level ?? 99);
    const rows = bench.attend(order, { level, plan });
    order.forEach((sequence, i) => assertEquals(rows.bits(i), alone[sequence], `level ${level}`));
  }
  const many = Array.from({ length: 60 }, (_, i) => i % lengths.length);
  const rows = bench.attend(many, { plan });
  many.forEach((sequence, i) => assertEquals(rows.bits(i), alone[sequence], `row ${i} of many`));
});

gpuTest("AttendDecode draws every item once when there are many more items than places", (gpu) => {
  const lengths = [65, 200, 640, 1];
  const data = new Sequences({ heads: 8, kvHeads: 8, headDim: 64 }, lengths);
  const bench = new Bench(gpu, data);
  using plan = bench.kernel.plan(400);
  const chosen = Array.from({ length: 400 }, (_, i) => i % lengths.length);
  for (let repeat = 0; repeat < 3; repeat++) {
    const rows = bench.attend(chosen, { plan });
    for (const i of [0, 1, 2, 3, 398, 399]) assertClose(rows, i, data.reference(i % 4, i % 4), `row ${i}`);
    chosen.forEach((sequence, i) => assertEquals(rows.bits(i), rows.bits(sequence)));
  }
});

gpuTest("AttendDecode agrees with the reference over 131,072 tokens", (gpu) => {
  const data = new Sequences({ heads: 3, kvHeads: 1, headDim: 64 }, [131072, 70001]);
  const bench = new Bench(gpu, data);
  const rows = bench.attend([0, 1]);
  for (const i of [0, 1]) assertClose(rows, i, data.reference(i, i), `${data.lengths[i]} tokens`);
  assertEquals(bench.attend([1], { level: 3 }).bits(0), rows.bits(1));
});

gpuTest("DecodePlan.nodes() gives partials of nodes that have the bits of the same nodes elsewhere", (gpu) => {
  const data = new Sequences({ heads: 8, kvHeads: 2, headDim: 128 }, [4096, 1024]);
  const bench = new Bench(gpu, data);
  using plan = bench.kernel.plan(8);
  // Query row, first word in the tables, pages, output row: queries of either sequence over nodes of either.
  const nodes = [[0, 0, 64, 0], [1, 16, 16, 1], [0, data.tableWidth, 16, 2], [0, 4, 4, 4], [
    1,
    data.tableWidth + 8,
    8,
    5,
  ]];
  const run = (list: readonly number[][]): Rows => {
    plan.nodes(gpu.stream, {
      count: list.length,
      nodes: gpu.upload(Int32Array.from(list.flat())),
      tables: gpu.upload(data.tables),
    });
    const rows = new Rows(gpu, 6, data.shape);
    plan.attend(gpu.stream, { ...bench.layer, q: bench.q, ...rows.places });
    rows.read();
    return rows;
  };
  const rows = run(nodes);
  for (const [query, first, pages, row] of nodes) {
    const sequence = Math.floor(first / data.tableWidth);
    const from = (first - sequence * data.tableWidth) * PAGE;
    assertClose(rows, row, data.reference(query, sequence, from, from + pages * PAGE), `node of row ${row}`);
    assertEquals(run([[query, first, pages, row]]).bits(row), rows.bits(row));
  }
  assertEquals(rows.bits(0), bench.attend([0]).bits(0), "the node that is the whole sequence");
  assert(rows.lse.subarray(3 * 8, 4 * 8).every(Number.isNaN), "a row that no node names is left alone");
});

gpuTest("AttendDecode shows NaN in a query in its head alone", (gpu) => {
  const data = new Sequences({ heads: 4, kvHeads: 2, headDim: 64 }, [300, 100]);
  data.q[64 + 7] = NaN;
  const rows = new Bench(gpu, data).attend([0, 1]);
  rows.lse.forEach((value, i) => assertEquals(Number.isNaN(value), i === 1));
  rows.o.forEach((value, i) => assertEquals(Number.isNaN(value), Math.floor(i / 64) === 1));
});

gpuTest("DecodePlan.sequences() takes tables and queries from maps, and plan and launches run from a graph", (gpu) => {
  const lengths = [500, 40, 1300];
  const data = new Sequences({ heads: 8, kvHeads: 2, headDim: 128 }, lengths);
  const bench = new Bench(gpu, data);
  using plan = bench.kernel.plan(4);
  const rows = new Rows(gpu, 4, data.shape);
  const device = gpu.upload(new Int32Array(4));
  // Job 1 is padding; job 3 attends with the query of sequence 1 to the tokens of sequence 0.
  const [tables, queries] = [[2, -1, 1, 0], [2, 3, 0, 1]];
  const work = {
    count: 4,
    lengths: device,
    tables: gpu.upload(data.tables),
    tableWidth: data.tableWidth,
    rows: gpu.upload(Int32Array.from(tables)),
    queries: gpu.upload(Int32Array.from(queries)),
  };
  using graph = gpu.stream.capture(() => {
    plan.sequences(gpu.stream, work);
    plan.attend(gpu.stream, { ...bench.layer, q: bench.q, ...rows.places });
  });
  for (const now of [[1300, 77, 40, 500], [1299, 77, 1, 64]]) {
    gpu.stream.copyToDevice(device, new Uint8Array(Int32Array.from(now).buffer));
    graph.launch(gpu.stream);
    rows.read();
    for (const job of [0, 2, 3]) {
      assertClose(rows, queries[job], data.reference(queries[job], tables[job], 0, now[job]), `job ${job}`);
    }
    assert(rows.o.subarray(3 * 8 * 128).every((value) => value === 0), "padding attends to nothing");
  }
});

Deno.test("DecodeLayout leaves room for its CTAs in shared memory and aligns what the kernel reads", () => {
  for (const shape of SHAPES) {
    const layout = new DecodeLayout(shape, 132);
    assert((layout.sharedBytes + 1024) * layout.ctasPerMultiprocessor <= 228 * 1024);
    assert(layout.sharedBytes <= 227 * 1024);
    for (const jobs of [1, 7, 4000]) {
      const { tickets, arrivals, entries, slots } = layout.places;
      const starts = [tickets, arrivals, entries, slots(jobs), layout.workspaceBytes(jobs)];
      for (const [i, start] of starts.entries()) {
        assertEquals(start % 128, 0);
        assert(i === 0 || start > starts[i - 1]);
      }
      assert(layout.entryNodes(jobs) * shape.kvHeads >= layout.ctas);
    }
  }
});

Deno.test("DecodeLayout refuses groups and heads that the kernel cannot take", () => {
  assertThrows(() => new DecodeLayout({ heads: 17, kvHeads: 1, headDim: 64 }, 132), RangeError, "17 heads");
  assertThrows(() => new DecodeLayout({ heads: 5, kvHeads: 2, headDim: 64 }, 132), RangeError, "5 heads");
  assertThrows(() => new DecodeLayout({ heads: 2, kvHeads: 2, headDim: 258 }, 132), RangeError, "258");
  assertThrows(() => new DecodeLayout({ heads: 2, kvHeads: 2, headDim: 65 }, 132), RangeError, "65");
  assertThrows(() => new DecodeLayout({ heads: 2, kvHeads: 2, headDim: 64 }, 132).entryNodes(0), RangeError, "got 0");
});
