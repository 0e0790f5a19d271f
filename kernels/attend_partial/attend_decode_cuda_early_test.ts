import { assertAlmostEquals, assertEquals } from "@std/assert";
import type { DevicePtr } from "../../ffi/cuda/cuda.ts";
import { bf16Bits, gpuTest, type TestGpu } from "../cuda/test_gpu.ts";
import { PoolLayout } from "../kv_copy/pool_layout.ts";
import { AttendDecode } from "./attend_decode_cuda.ts";
import type { AttendPlainShape } from "./attend_plain_cuda.ts";
import { SEEDS } from "./spec.ts";
import { randomValues } from "./test_data.ts";
import lateSource from "./testdata/late_copy.cu" with { type: "text" };

const PAGE = 64;
/** How long the last pages are behind the launch that reads them; far longer than that launch takes. */
const LATE_NS = 60_000n;
const REPLAYS = 5;

/** The address `bytes` behind another. */
function after(address: DevicePtr, bytes: number): DevicePtr {
  return address + BigInt(bytes) as DevicePtr;
}

/** Full pages come from this many blocks; last pages have a block of their own. */
const SHARED_BLOCKS = 16;

/**
 * Attends twice to the same random sequences: with everything in its place, and, in a graph, behind a kernel that writes the
 * last page of each sequence long after attention was let in. Before that the last pages are NaN.
 */
function check(gpu: TestGpu, shape: AttendPlainShape, lengths: readonly number[], level?: number): void {
  const { heads, kvHeads, headDim } = shape;
  const { blockBytes } = new PoolLayout({ layers: 1, kvHeads, headDim });
  const pages = lengths.map((length) => Math.ceil(length / PAGE));
  const tableWidth = Math.max(...pages);
  const place = (row: number) => (SHARED_BLOCKS + row) * blockBytes;
  const tables = new Int32Array(lengths.length * tableWidth);
  pages.forEach((count, row) => {
    for (let page = 0; page < count; page++) {
      tables[row * tableWidth + page] = page === count - 1 ? SHARED_BLOCKS + row : (7 * page + row) % SHARED_BLOCKS;
    }
  });
  const shared = randomValues(SHARED_BLOCKS * blockBytes / 2, SEEDS.test);
  const pool = gpu.uploadWithRoom(Uint16Array.from(shared, bf16Bits), lengths.length * blockBytes);
  const last = gpu.poisoned(lengths.length * blockBytes);
  lengths.forEach((_, row) => {
    const from = after(pool, (5 * row + 3) % SHARED_BLOCKS * blockBytes);
    gpu.stream.copy(after(last, row * blockBytes), from, blockBytes);
    gpu.stream.copy(after(pool, place(row)), from, blockBytes);
  });

  const kernel = new AttendDecode(gpu.context, gpu.kernels, shape);
  using plan = kernel.plan(lengths.length);
  const work = {
    count: lengths.length,
    lengths: gpu.upload(Int32Array.from(lengths)),
    tables: gpu.upload(tables),
    tableWidth,
  };
  const values = lengths.length * heads * headDim;
  const q = gpu.uploadBf16(randomValues(values, SEEDS.test + 1, 3));
  const layer = { layer: pool, blockBytes, q };
  const wanted = gpu.poisoned(4 * values);
  plan.sequences(gpu.stream, work, level);
  plan.attend(gpu.stream, { ...layer, o: wanted });
  const expected = gpu.f32(wanted, values);
  assertAlmostEquals(expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0), 0.5, 0.5);

  const late = gpu.kernels.module({ name: "late_copy", source: lateSource }).function("late_copy");
  const o = gpu.poisoned(4 * values);
  const targets = gpu.upload(BigUint64Array.from(lengths, (_, row) => BigInt(place(row))));
  using graph = gpu.stream.capture(() => {
    gpu.stream.fill(after(pool, place(0)), 0xff, lengths.length * blockBytes);
    gpu.stream.fill(o, 0xff, 4 * values);
    plan.sequences(gpu.stream, work, level);
    gpu.stream.launch(late, {
      grid: [lengths.length],
      block: [128],
      args: [{ ptr: last }, { ptr: pool }, { ptr: targets }, { u64: BigInt(blockBytes) }, { u64: LATE_NS }],
      programmatic: true,
    });
    plan.attend(gpu.stream, { ...layer, o, programmatic: true, early: true });
  });
  for (let replay = 0; replay < REPLAYS; replay++) {
    graph.launch(gpu.stream);
    assertEquals(gpu.f32(o, values), expected, `replay ${replay}`);
  }
}

for (const shape of [{ heads: 8, kvHeads: 2, headDim: 128 }, { heads: 9, kvHeads: 3, headDim: 64 }]) {
  const name = `${shape.heads}/${shape.kvHeads} heads of ${shape.headDim}`;
  gpuTest(`AttendDecode fetches early only what its predecessor cannot have written, ${name}`, (gpu) => {
    const lengths = [700, 1, 64, 65, 4100, 130];
    for (const level of [undefined, 0, 3, 20]) check(gpu, shape, lengths, level);
    check(gpu, shape, [5]);
    check(gpu, shape, Array.from({ length: 150 }, (_, i) => 1 + (i * 37) % 400));
  });
}
