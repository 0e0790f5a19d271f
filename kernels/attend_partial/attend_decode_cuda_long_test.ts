import { assert, assertEquals } from "@std/assert";
import type { DevicePtr } from "../../ffi/cuda/cuda.ts";
import { gpuTest, roundBf16, type TestGpu } from "../cuda/test_gpu.ts";
import { PoolLayout } from "../kv_copy/pool_layout.ts";
import { AttendDecode } from "./attend_decode_cuda.ts";
import type { AttendPlainShape } from "./attend_plain_cuda.ts";
import { SEEDS } from "./spec.ts";
import { randomValues } from "./test_data.ts";

const PAGE = 64;
/** Different blocks; a long sequence has each of them many times. A prime, so that no power of two of pages repeats. */
const BLOCKS = 29;
/** From one block to the next, so that they reach beyond 4 GiB. */
const STRIDE = 160 * 2 ** 20;
/** As for short sequences: weights are rounded to bf16 before they meet the values. */
const TOLERANCE = { o: 2 ** -9 * 1.02, lse: 1e-6 } as const;

/** A sequence of any length made of few blocks, for which f64 needs only to count them. */
class Repeated {
  readonly shape: AttendPlainShape;
  readonly pool: DevicePtr;
  readonly q: Float32Array;
  readonly #keys: Float32Array<ArrayBuffer>;
  readonly #values: Float32Array<ArrayBuffer>;

  constructor(gpu: TestGpu, shape: AttendPlainShape, rows: number) {
    const { heads, kvHeads, headDim } = shape;
    this.shape = shape;
    const count = BLOCKS * PAGE * kvHeads * headDim;
    this.q = randomValues(rows * heads * headDim, SEEDS.test, 3).map(roundBf16);
    this.#keys = randomValues(count, SEEDS.test + 1).map(roundBf16);
    this.#values = randomValues(count, SEEDS.test + 2).map(roundBf16);
    this.pool = gpu.poisoned(BLOCKS * STRIDE);
    const layout = new PoolLayout({ layers: 1, kvHeads, headDim });
    // The upper half of what is already rounded.
    const sides = [this.#keys, this.#values].map(({ buffer }) => new Uint16Array(buffer).filter((_, i) => i % 2 === 1));
    for (let block = 0; block < BLOCKS; block++) {
      const bits = new Uint16Array(layout.blockBytes / 2);
      sides.forEach((source, side) => {
        for (let slot = 0; slot < PAGE; slot++) {
          for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
            // Eight dimensions lie together.
            for (let dim = 0; dim < headDim; dim += 8) {
              const row = this.#row(block, slot, kvHead) + dim;
              const to = layout.offset({ layer: 0, kvHead, value: side === 1, slot, dim });
              bits.set(source.subarray(row, row + 8), to / 2);
            }
          }
        }
      });
      gpu.stream.copyToDevice(this.pool + BigInt(block * STRIDE) as DevicePtr, new Uint8Array(bits.buffer));
    }
  }

  /** Blocks of a sequence of that many pages. */
  static table(pages: number): Int32Array<ArrayBuffer> {
    return Int32Array.from({ length: pages }, (_, page) => (page + Math.floor(page / BLOCKS) * 7) % BLOCKS);
  }

  /** Head `head` of query `row` over the first `length` tokens, in f64. */
  reference(row: number, head: number, length: number): { readonly o: Float64Array; readonly lse: number } {
    const { heads, kvHeads, headDim } = this.shape;
    const kvHead = Math.floor(head / (heads / kvHeads));
    const query = this.q.subarray((row * heads + head) * headDim, (row * heads + head + 1) * headDim);
    const counts = new Float64Array(BLOCKS * PAGE);
    Repeated.table(Math.ceil(length / PAGE)).forEach((block, page) => {
      for (let slot = 0; slot < Math.min(PAGE, length - page * PAGE); slot++) counts[block * PAGE + slot]++;
    });
    const scores = counts.map((_, token) => {
      const at = this.#row(0, token, kvHead);
      return query.reduce((sum, value, dim) => sum + value * this.#keys[at + dim], 0) / Math.sqrt(headDim);
    });
    const most = scores.reduce((a, b) => Math.max(a, b));
    const weights = scores.map((score, token) => counts[token] * Math.exp(score - most));
    const sum = weights.reduce((a, b) => a + b);
    const o = new Float64Array(headDim);
    weights.forEach((weight, token) => {
      const at = this.#row(0, token, kvHead);
      for (let dim = 0; dim < headDim; dim++) o[dim] += weight / sum * this.#values[at + dim];
    });
    return { o, lse: most + Math.log(sum) };
  }

  #row(block: number, slot: number, kvHead: number): number {
    const { kvHeads, headDim } = this.shape;
    return ((block * PAGE + slot) * kvHeads + kvHead) * headDim;
  }
}

for (const shape of [{ heads: 32, kvHeads: 8, headDim: 128 }, { heads: 9, kvHeads: 3, headDim: 64 }]) {
  const { heads, kvHeads, headDim } = shape;
  gpuTest(
    `AttendDecode agrees with f64 over 131,072 and 1,000,000 tokens at ${heads}/${kvHeads} heads of ${headDim}`,
    (gpu) => {
      const lengths = [131_072, 1_000_000, 999_937, 70_001];
      const data = new Repeated(gpu, shape, lengths.length);
      const table = Repeated.table(Math.ceil(Math.max(...lengths) / PAGE));
      const tables = new Int32Array(lengths.length * table.length);
      lengths.forEach((_, row) => tables.set(table, row * table.length));
      const kernel = new AttendDecode(gpu.context, gpu.kernels, shape);
      using plan = kernel.plan(lengths.length);
      const q = gpu.uploadBf16(data.q);
      const work = {
        count: lengths.length,
        lengths: gpu.upload(Int32Array.from(lengths)),
        tables: gpu.upload(tables),
        tableWidth: table.length,
      };
      const [o, lse] = [gpu.poisoned(4 * data.q.length), gpu.poisoned(4 * lengths.length * heads)];
      const run = (level?: number) => {
        plan.sequences(gpu.stream, work, level);
        plan.attend(gpu.stream, { layer: data.pool, blockBytes: STRIDE, q, o, lse });
        return { o: gpu.f32(o, data.q.length), lse: gpu.f32(lse, lengths.length * heads) };
      };
      const actual = run();
      lengths.forEach((length, row) => {
        for (const head of [0, heads >> 1, heads - 1]) {
          const wanted = data.reference(row, head, length);
          const place = `${length} tokens, head ${head}`;
          const near = Math.abs(actual.lse[row * heads + head] - wanted.lse);
          assert(near <= TOLERANCE.lse * (4 + Math.abs(wanted.lse)), `${place}: lse differs by ${near}`);
          wanted.o.forEach((value, dim) => {
            const got = actual.o[(row * heads + head) * headDim + dim];
            assert(Math.abs(got - value) <= TOLERANCE.o, `${place}: o[${dim}]: wanted ${value}, got ${got}`);
          });
        }
      });
      for (const level of [5, 9, 20]) assertEquals(run(level), actual, `level ${level}`);
    },
  );
}
