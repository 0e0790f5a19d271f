import { assert, assertEquals } from "@std/assert";
import { randomValues } from "../attend_partial/test_data.ts";
import { gpuTest, roundBf16, type TestGpu } from "../cuda/test_gpu.ts";
import { LogitsKernel } from "./logits_cuda.ts";
import { logitsReference } from "./reference.ts";
import { CANDIDATES, type LogitSummary, SEEDS, TOLERANCE } from "./spec.ts";

/** Summaries of rows of `vocab` logits and of nothing else: one row more is there and beyond the count. */
function summarise(gpu: TestGpu, rows: readonly Float32Array[], input: "bf16" | "f32" = "f32"): LogitSummary[] {
  const [vocab, room] = [rows[0].length, rows.length + 1];
  const kernel = new LogitsKernel(gpu.kernels, { vocab, input, maxRows: room });
  const logits = new Float32Array(room * vocab);
  rows.forEach((row, r) => logits.set(row, r * vocab));
  const [lse, ids, top] = [4, 4 * CANDIDATES, 4 * CANDIDATES].map((bytes) => gpu.poisoned(room * bytes));
  const scratch = gpu.zeroed(kernel.scratchBytes);
  const work = {
    logits: input === "bf16" ? gpu.uploadBf16(logits) : gpu.upload(logits),
    count: gpu.word(rows.length),
    scratch,
    lse,
    ids,
    top,
    rows: room,
  };
  // Twice: the first launch has to leave the counters as it found them.
  kernel.launch(gpu.stream, work);
  kernel.launch(gpu.stream, work);
  const [sums, names, values] = [
    gpu.f32(lse, room),
    gpu.i32(ids, room * CANDIDATES),
    gpu.f32(top, room * CANDIDATES),
  ];
  assert(Number.isNaN(sums[rows.length]), "rows beyond the count are left alone");
  const count = Math.min(CANDIDATES, vocab);
  return rows.map((_, r) => {
    const from = r * CANDIDATES;
    for (let i = count; i < CANDIDATES; i++) {
      assertEquals([names[from + i], values[from + i]], [-1, -Infinity], "places beyond the vocabulary");
    }
    return { logSumExp: sums[r], ids: names.slice(from, from + count), logits: values.slice(from, from + count) };
  });
}

/** Candidates exactly: they are copied, not computed. */
function assertSame(actual: LogitSummary, row: Float32Array, what: string): void {
  const expected = logitsReference(row);
  assertEquals(actual.ids, expected.ids, what);
  assertEquals(actual.logits, expected.logits, what);
  const tolerance = TOLERANCE.absolute + TOLERANCE.relative * Math.abs(expected.logSumExp);
  assert(
    Object.is(actual.logSumExp, expected.logSumExp) || Math.abs(actual.logSumExp - expected.logSumExp) <= tolerance,
    `${what}: lse wanted ${expected.logSumExp}, got ${actual.logSumExp}`,
  );
}

for (
  const vocab of [
    1,
    3,
    63,
    64,
    65,
    127,
    4095,
    4096,
    4097,
    4160,
    4480,
    8195,
    12290,
    16389,
    32000,
    50257,
    128256,
    151936,
    262144,
  ]
) {
  gpuTest(`LogitsKernel.launch() agrees with the reference for ${vocab} logits of any spread`, (gpu) => {
    const spreads = [0, 0.01, 12, 1e4];
    const rows = spreads.map((spread) => randomValues(vocab, SEEDS.test + vocab, spread));
    summarise(gpu, rows).forEach((actual, r) => assertSame(actual, rows[r], `spread ${spreads[r]}`));
  });
}

gpuTest("LogitsKernel.launch() takes logits of bf16, of which many are equal", (gpu) => {
  for (const vocab of [77, 9000, 49152]) {
    const rows = [0.5, 12].map((spread) => randomValues(vocab, SEEDS.test, spread).map(roundBf16));
    summarise(gpu, rows, "bf16").forEach((actual, r) => assertSame(actual, rows[r], `row ${r} of ${vocab}`));
  }
});

gpuTest("LogitsKernel.launch() puts equal logits in the order of their ids and keeps the sign of zeros", (gpu) => {
  const few = randomValues(9000, SEEDS.test, 4).map(Math.round);
  const zeros = Float32Array.from({ length: 9000 }, (_, i) => i % 2 === 0 ? -0 : 0);
  const [first, second] = summarise(gpu, [few, zeros]);
  assertSame(first, few, "nine different values");
  assertSame(second, zeros, "zeros");
});

gpuTest("LogitsKernel.launch() finds candidates that crowd into one group, in any order", (gpu) => {
  const rows = [0, 4090, 9000 - 70].map((first) => {
    const row = randomValues(9000, SEEDS.test);
    for (let i = 0; i < 70; i++) row[first + i] = 5 + i % 7;
    return row;
  });
  const ascending = Float32Array.from({ length: 9000 }, (_, i) => i);
  rows.push(ascending, ascending.map((value) => -value), ascending.map((value) => value % 16));
  summarise(gpu, rows).forEach((actual, r) => assertSame(actual, rows[r], `row ${r}`));
});

gpuTest("LogitsKernel.launch() takes infinities and shows NaN in lse alone", (gpu) => {
  const mostly = randomValues(5000, SEEDS.test).fill(-Infinity, 10, 4980);
  const none = new Float32Array(5000).fill(-Infinity);
  const broken = mostly.slice();
  broken[4990] = NaN;
  broken[3] = NaN;
  const alone = none.slice();
  alone[4500] = NaN;
  const infinite = randomValues(5000, SEEDS.test);
  infinite[77] = Infinity;
  const rows = [mostly, none, broken, alone, infinite];
  summarise(gpu, rows).forEach((actual, r) => assertSame(actual, rows[r], `row ${r}`));
});

gpuTest("LogitsKernel.launch() gives a row the same bits in any batch", (gpu) => {
  const rows = Array.from({ length: 9 }, (_, r) => randomValues(20000, SEEDS.test + r, 6));
  const together = summarise(gpu, rows);
  rows.forEach((row, r) => assertEquals(summarise(gpu, [row])[0], together[r]));
});
