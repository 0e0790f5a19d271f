import { assertEquals } from "@std/assert";
import { randomValues } from "../attend_partial/test_data.ts";
import { drawFromAll } from "../../runtime/sampling/full_draw.ts";
import { gpuTest, type TestGpu } from "../cuda/test_gpu.ts";
import { logitsReference } from "../logits/reference.ts";
import { CANDIDATES, type LogitSummary } from "../logits/spec.ts";
import { drawReference, sampleReference } from "./reference.ts";
import { SAMPLE_STATE_BYTES, SampleKernel } from "./sample_cuda.ts";
import { SampleRing, sampleRingBytes } from "./sample_ring.ts";
import { SAMPLE_ROW_BYTES, writeSampleRow } from "./sample_rows.ts";
import { type SampleMode, type SampleRow, SEEDS } from "./spec.ts";

const INPUT_TOKENS = 40;

/** One launch over rows, as a captured graph, `steps` times. */
function sample(
  gpu: TestGpu,
  { rows, summaries, logits, vocab, steps = 1 }: {
    readonly rows: readonly SampleRow[];
    readonly summaries: readonly LogitSummary[];
    readonly logits?: readonly Float32Array[];
    readonly vocab: number;
    readonly steps?: number;
  },
) {
  const kernel = new SampleKernel(gpu.kernels, { vocab, input: "f32" });
  const ringSize = { slots: 4, rows: rows.length };
  const pinned = gpu.pinned(sampleRingBytes(ringSize));
  const bytes = new Uint8Array(rows.length * SAMPLE_ROW_BYTES);
  rows.forEach((row, r) => {
    writeSampleRow(bytes.subarray(r * SAMPLE_ROW_BYTES, (r + 1) * SAMPLE_ROW_BYTES), row);
  });
  const ids = new Int32Array(rows.length * CANDIDATES).fill(-1);
  const top = new Float32Array(rows.length * CANDIDATES).fill(-Infinity);
  summaries.forEach((summary, r) => {
    ids.set(summary.ids, r * CANDIDATES);
    top.set(summary.logits, r * CANDIDATES);
  });
  const all = new Float32Array(rows.length * vocab);
  logits?.forEach((row, r) => all.set(row, r * vocab));
  const tokens = gpu.poisoned(4 * INPUT_TOKENS);
  const room = 9;
  const deviceRows = gpu.uploadWithRoom(bytes, room * SAMPLE_ROW_BYTES);
  const work = {
    rows: deviceRows,
    logits: logits && gpu.upload(all),
    lse: gpu.uploadWithRoom(Float32Array.from(summaries, ({ logSumExp }) => logSumExp), 4 * room),
    ids: gpu.uploadWithRoom(ids, 4 * CANDIDATES * room),
    top: gpu.uploadWithRoom(top, 4 * CANDIDATES * room),
    count: gpu.word(rows.length),
    tokens,
    inputTokens: INPUT_TOKENS,
    state: gpu.zeroed(SAMPLE_STATE_BYTES),
    ring: pinned.address,
    ringSize,
    maxRows: rows.length + room,
  };
  gpu.stream.synchronize();
  using graph = gpu.stream.capture(() => kernel.launch(gpu.stream, work));
  for (let step = 0; step < steps; step++) graph.launch(gpu.stream);
  gpu.stream.synchronize();
  const ring = new SampleRing(pinned.buffer, ringSize);
  const after = gpu.bytes(deviceRows, bytes.length);
  return { ring, tokens: gpu.i32(tokens, INPUT_TOKENS), after, before: bytes };
}

/** Shares that no whole number of equal tokens makes up: where one does, rounding decides and the kernel must not. */
const DRAWS: readonly Omit<SampleMode & { kind: "draw" }, "seed">[] = [
  { kind: "draw", inverseTemperature: 1, topK: Infinity, topP: 1, depth: Infinity },
  { kind: "draw", inverseTemperature: 1 / 0.7, topK: Infinity, topP: 1, depth: Infinity },
  { kind: "draw", inverseTemperature: 1 / 1.4, topK: 50, topP: 1, depth: Infinity },
  { kind: "draw", inverseTemperature: 1 / 0.3, topK: Infinity, topP: 0.90135791, depth: Infinity },
  { kind: "draw", inverseTemperature: 1, topK: 1, topP: 1, depth: Infinity },
  { kind: "draw", inverseTemperature: 1, topK: 200, topP: 0.80372468, depth: Infinity },
  { kind: "draw", inverseTemperature: 1, topK: Infinity, topP: 1, depth: -Math.log(0.05) },
  { kind: "draw", inverseTemperature: 1.25, topK: 20, topP: 0.95312357, depth: -Math.log(0.02) },
  { kind: "draw", inverseTemperature: 1e300, topK: Infinity, topP: 1, depth: Infinity },
];

for (const vocab of [1, 3, 63, 64, 65, 3000]) {
  gpuTest(`SampleKernel.launch() decides rows of ${vocab} by their candidates as the reference does`, (gpu) => {
    const rows: SampleRow[] = [];
    const summaries: LogitSummary[] = [];
    for (let r = 0; r < 360; r++) {
      const logits = randomValues(vocab, SEEDS.test + r, [0.01, 3, 8, 30][r % 4]);
      if (r % 7 === 0) logits.fill(-Infinity, Math.ceil(vocab / 3));
      summaries.push(logitsReference(logits));
      rows.push({
        mode: r % 10 === 9
          ? { kind: "greedy" }
          : { ...DRAWS[r % DRAWS.length], seed: r % 2 === 0 ? r : -(2 ** 40) - r },
        accepted: r % 3 === 0 ? 2 ** 33 + r : r,
        slot: r < INPUT_TOKENS ? r : undefined,
        tag: 7 * r,
      });
    }
    const { ring, tokens, after, before } = sample(gpu, { rows, summaries, vocab });
    assertEquals([ring.has(1), ring.rows(1)], [true, rows.length]);
    rows.forEach((row, r) => {
      const outcome = sampleReference(row, { summary: summaries[r], vocab });
      assertEquals(ring.result(1, r), { outcome, logSumExp: summaries[r].logSumExp, tag: 7 * r }, `row ${r}`);
      if (r < INPUT_TOKENS) assertEquals(tokens[r], outcome.kind === "chosen" ? outcome.id : 0, `token of row ${r}`);
      new DataView(before.buffer).setBigUint64(r * SAMPLE_ROW_BYTES + 40, BigInt(row.accepted + 1), true);
    });
    assertEquals(after, before, "nothing of a row changes but its count");
  });
}

for (const vocab of [2, 65, 100, 3000, 9999, 50000]) {
  gpuTest(`SampleKernel.launch() draws from all of ${vocab} logits as the sampler does`, (gpu) => {
    const logits = Array.from({ length: 40 }, (_, r) => {
      const row = randomValues(vocab, SEEDS.test + r, [0, 0.01, 3, 8][r % 4]);
      // Few different values: the id decides.
      if (r % 5 === 0) row.forEach((value, id) => row[id] = Math.round(value));
      if (r % 7 === 0) row.fill(-Infinity, Math.ceil(vocab / 3), vocab - 1);
      return row;
    });
    const rows = logits.flatMap((_, r) =>
      DRAWS.map((draw, i): SampleRow => ({ mode: { ...draw, seed: 1000 * r + i }, accepted: r + i }))
    );
    const each = logits.flatMap((row) => DRAWS.map(() => row));
    const summaries = logits.map(logitsReference).flatMap((summary) => DRAWS.map(() => summary));
    const { ring } = sample(gpu, { rows, summaries, logits: each, vocab });
    rows.forEach(({ mode, accepted }, r) => {
      if (mode.kind !== "draw") return;
      const id = drawFromAll(drawReference(mode.seed, accepted), each[r], mode);
      assertEquals(
        ring.result(1, r).outcome,
        { kind: "chosen", id, logit: each[r][id] },
        `row ${r}: ${JSON.stringify(mode)}`,
      );
    });
  });
}

gpuTest("SampleKernel.launch() draws anew in every step of a graph and keeps four steps", (gpu) => {
  const vocab = 500;
  const logits = randomValues(vocab, SEEDS.test, 2);
  const summary = logitsReference(logits);
  const rows = [0, 1, 2].map((r): SampleRow => ({
    mode: { ...DRAWS[2], topK: 30, seed: r },
    accepted: 5 * r,
    slot: 2 - r,
  }));
  const { ring, tokens } = sample(gpu, { rows, summaries: rows.map(() => summary), vocab, steps: 6 });
  assertEquals([1, 2, 3, 4, 5, 6, 7].map((step) => ring.has(step)), [false, false, true, true, true, true, false]);
  rows.forEach((row, r) => {
    for (let step = 3; step <= 6; step++) {
      const outcome = sampleReference({ ...row, accepted: 5 * r + step - 1 }, { summary, vocab });
      assertEquals(ring.result(step, r).outcome, outcome, `row ${r} of step ${step}`);
      if (step === 6) assertEquals(tokens[2 - r], outcome.kind === "chosen" ? outcome.id : 0);
    }
  });
});

gpuTest("SampleKernel.launch() names bad logits, leaves rows to the host and writes no token without a slot", (gpu) => {
  const vocab = 90;
  const good = logitsReference(randomValues(vocab, SEEDS.test, 2));
  const lses = [NaN, Infinity, -Infinity, good.logSumExp];
  const summaries = lses.map((logSumExp) => ({ ...good, logSumExp }));
  const rows = lses.map((_, r): SampleRow => ({
    mode: r === 3 ? { kind: "host" } : { kind: "greedy" },
    accepted: 0,
    slot: r === 3 ? INPUT_TOKENS : undefined,
  }));
  const { ring, tokens } = sample(gpu, { rows, summaries, vocab });
  assertEquals(rows.map((_, r) => ring.result(1, r).outcome.kind), ["bad logits", "bad logits", "bad logits", "host"]);
  assertEquals(tokens, new Int32Array(INPUT_TOKENS).fill(-1));
});
