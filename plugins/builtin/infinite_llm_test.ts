import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import * as fc from "fast-check";
import { memoryConformance } from "../conformance.ts";
import { SeededRandom, ViewFuzzer } from "../fuzz.ts";
import { MoveRecorder, PlacementRecorder } from "../memory_answers.ts";
import { clusterOf, type MemberRow, type SequenceRow } from "../test_cluster_view.ts";
import type { ClusterView } from "../types.ts";
import { INFINITE_LLM_DEFAULTS, infiniteLlm, type InfiniteLlmConfig } from "./infinite_llm.ts";

memoryConformance({ plugin: infiniteLlm });

function placed(cluster: ClusterView, { segments, local = 1, tokens }: {
  readonly segments: number;
  readonly local?: number;
  readonly tokens?: number;
}): readonly (readonly [number, number])[] {
  const request = { segments, localSegments: local, tokens: tokens ?? (segments + local) * 100, maxTokens: 1e6 };
  const recorder = new PlacementRecorder(request, cluster);
  infiniteLlm.place?.(INFINITE_LLM_DEFAULTS, request, cluster, recorder.out);
  return recorder.finish().map(({ member, segments }) => [member, segments]);
}

function moved(
  members: readonly MemberRow[],
  sequences: readonly SequenceRow[],
  config: Partial<InfiniteLlmConfig> = {},
) {
  const recorder = new MoveRecorder(clusterOf(members, { sequences, self: -1 }));
  infiniteLlm.move?.(
    { ...INFINITE_LLM_DEFAULTS, ...config },
    clusterOf(members, { sequences, self: -1 }),
    recorder.out,
  );
  return recorder.finish();
}

/** A full debtor of one long sequence with many waiting. */
const debtor: MemberRow = { total: 100, own: 100, running: 1, waiting: 50, maxBatch: 40 };
const long: SequenceRow = { home: 0, on: [100] };

Deno.test("infiniteLlm.place() takes the emptiest creditor that holds all of it", () => {
  const cluster = clusterOf([{}, { own: 50 }, { own: 30, lent: 10 }, { own: 41 }]);
  assertEquals(placed(cluster, { segments: 20 }), [[2, 20]]);
  assertEquals(placed(cluster, { segments: 60 }), [[2, 60]]);
});

Deno.test("infiniteLlm.place() would rather use few members than empty ones", () => {
  const cluster = clusterOf([{}, { total: 10, holder: true }, { total: 10, holder: true }, { own: 60 }]);
  assertEquals(placed(cluster, { segments: 15 }), [[3, 15]]);
  // Two have to do it: one of them must be the large one, the other is the emptiest.
  assertEquals(placed(cluster, { segments: 45, local: 0 }), [[1, 8], [3, 37]]);
});

Deno.test("infiniteLlm.place() skips the asking member, unusable ones and those that lend nothing", () => {
  const cluster = clusterOf([{}, { usable: false }, { lendable: 0 }, { own: 90 }]);
  assertEquals(placed(cluster, { segments: 10 }), [[3, 10]]);
  assertEquals(placed(cluster, { segments: 11 }), []);
});

Deno.test("infiniteLlm.place() cuts at multiples of large powers of two, counted from the start of the sequence", () => {
  const cluster = clusterOf([{}, { total: 100, own: 1 }, { total: 100, own: 2 }]);
  assertEquals(placed(cluster, { segments: 150 }), [[1, 64], [2, 86]]);
  // 20 segments left home before: the border lies at 64 again.
  assertEquals(placed(cluster, { segments: 140, tokens: 16_100 }), [[1, 44], [2, 96]]);
});

Deno.test("infiniteLlm.place() gives a wholly empty instance half of what it would take when others have room", () => {
  const cluster = clusterOf([{}, {}, { own: 10 }]);
  assertEquals(placed(cluster, { segments: 60 }), [[2, 60]]);
  assertEquals(placed(cluster, { segments: 50 }), [[1, 50]]);
  assertEquals(placed(cluster, { segments: 95 }), [[1, 95]], "one member more is worse");
  assertEquals(
    placed(clusterOf([{}, { holder: true }, { own: 10 }]), { segments: 60 }),
    [[1, 60]],
    "a holder has no load",
  );
});

Deno.test("infiniteLlm.place() borrows all of it within what members lend, on the fewest, or nothing", () => {
  fc.assert(fc.property(fc.integer(), (seed) => {
    const fuzzer = new ViewFuzzer(new SeededRandom(seed));
    const cluster = fuzzer.cluster();
    const { members } = cluster;
    const request = fuzzer.placement(cluster);
    const recorder = new PlacementRecorder(request, cluster);
    infiniteLlm.place?.(INFINITE_LLM_DEFAULTS, request, cluster, recorder.out);
    const answer = recorder.finish();
    const offers = [...members.lendableSegments]
      .filter((_, i) => i !== cluster.self && members.usable[i] === 1).sort((a, b) => b - a);
    let count = 0;
    for (let sum = 0; count < offers.length && sum < request.segments; count++) sum += offers[count];
    const enough = offers.reduce((sum, offer) => sum + offer, 0) >= request.segments;
    assertEquals(answer.length > 0, enough);
    if (enough) assert(answer.length <= count);
  }));
});

Deno.test("infiniteLlm.move() lends where the memory it frees admits more requests, with the gain the model states", () => {
  const [move, ...more] = moved([debtor, { holder: true, total: 30 }], [long, { home: 0, on: [2], tokens: 200 }]);
  assertEquals(more, []);
  // 30 segments admit 15 requests of 2 segments: batch 16 attends 7,200 + 3,000 tokens, and waits for 3,000 elsewhere.
  const beforeMs = 10 + 4 * 10.2;
  const afterMs = 10 + 15 + 4 * 10.2;
  const { predictedGain = NaN, ...order } = move;
  assertEquals(order, { sequence: 0, from: 0, to: 1, segments: 30 });
  assertAlmostEquals(predictedGain, 16_000 / afterMs - 1000 / beforeMs, 1e-9);
});

Deno.test("infiniteLlm.move() serves the debtor of the smallest batch first and takes its longest sequence", () => {
  const members = [
    { ...debtor, running: 3 },
    { ...debtor, running: 2 },
    { holder: true, total: 8 },
  ];
  const sequences = [
    { home: 0, on: [90] },
    { home: 1, on: [0, 20] },
    { home: 1, on: [0, 70] },
    { home: 1, on: [0, 10] },
  ];
  assertEquals(moved(members, sequences).map(({ sequence, from, to }) => [sequence, from, to]), [[2, 1, 2]]);
});

Deno.test("infiniteLlm.move() leaves pinned sequences and the last segment at home", () => {
  const creditors = [debtor, { holder: true }];
  assertEquals(moved(creditors, [{ ...long, pinned: true }, { home: 0, on: [50] }]).map(({ sequence }) => sequence), [
    1,
  ]);
  assertEquals(moved(creditors, [{ home: 0, on: [1] }]), []);
  assert(moved(creditors, [{ home: 0, on: [9] }]).every(({ segments }) => segments <= 8));
});

Deno.test("infiniteLlm.move() lends to the emptiest creditor first and goes on with what is left", () => {
  const moves = moved([debtor, { holder: true, total: 20, lent: 8 }, { holder: true, total: 20, lent: 4 }], [long]);
  assertEquals(moves.map(({ to, segments }) => [to, segments]), [[2, 16], [1, 12]]);
});

Deno.test("infiniteLlm.move() keeps its thresholds", () => {
  const holder = { holder: true };
  const count = (members: readonly MemberRow[], config?: Partial<InfiniteLlmConfig>) =>
    moved(members, [long], config).length;
  assertEquals(count([debtor, holder]), 1);
  assertEquals(count([{ ...debtor, running: 20 }, holder]), 0, "its batch is large");
  assertEquals(count([{ ...debtor, total: 200 }, holder]), 0, "it has memory left");
  assertEquals(count([{ ...debtor, total: 200 }, holder], { debtorUse: 0.5 }), 1);
  assertEquals(count([debtor, { ...holder, lent: 70 }]), 0, "the creditor has none left");
  assertEquals(count([debtor, { ...holder, lent: 70 }], { creditorUse: 0.8 }), 1);
  assertEquals(count([debtor, holder], { maxMoves: 0 }), 0);
  assertEquals(count([debtor, holder], { minGain: 1e6 }), 0);
  assertEquals(count([{ ...debtor, usable: false }, holder]), 0);
  assertEquals(count([debtor, { ...holder, usable: false }]), 0);
});

Deno.test("infiniteLlm.move() makes no move that costs the creditor more than it brings", () => {
  const idle: MemberRow = { running: 0 };
  const busy: MemberRow = { running: 8, own: 60, times: [10, 1, 4000] };
  const waitsForNothing = { ...debtor, waiting: 0 };
  assertEquals(moved([waitsForNothing, busy], [long]), []);
  assertEquals(moved([debtor, idle], [long]).length, 1);
});

Deno.test("infiniteLlm.move() stops where the home would wait longer for the creditor than for itself", () => {
  const waitsForNothing = { ...debtor, waiting: 0 };
  // Both attend alike, so half the sequence elsewhere is best: 48 segments are the count next to it that is tried.
  assertEquals(moved([waitsForNothing, { holder: true }], [long]).map(({ segments }) => segments), [48]);
  assertEquals(moved([waitsForNothing, { holder: true }], [long], { remoteMs: 1000 }), []);
});

Deno.test("infiniteLlm.move() does nothing while the time of a step is unknown", () => {
  assertEquals(moved([{ ...debtor, times: [NaN, NaN, NaN] }, { holder: true }], [long]), []);
  assertEquals(moved([debtor, { running: 1, times: [NaN, NaN, NaN] }], [long]), []);
});

Deno.test("infiniteLlm.move() makes only moves that gain and that the host accepts", () => {
  fc.assert(fc.property(fc.integer(), (seed) => {
    const cluster = { ...new ViewFuzzer(new SeededRandom(seed)).cluster(), self: -1 };
    const recorder = new MoveRecorder(cluster);
    infiniteLlm.move?.(
      { ...INFINITE_LLM_DEFAULTS, debtorBatch: 1, debtorUse: 0, creditorUse: 1 },
      cluster,
      recorder.out,
    );
    for (const { sequence, from, segments, predictedGain = 0 } of recorder.finish()) {
      assert(predictedGain > 0);
      assertEquals(from, cluster.sequences.home[sequence]);
      assert(segments < cluster.sequences.localSegments[sequence]);
    }
  }));
});

Deno.test("infiniteLlm.evict() gives up what few share, of short sequences, from the end", () => {
  const view = {
    segments: 5,
    length: 5,
    shared: Int32Array.of(2, 1, 1, 1, 1),
    tokens: Int32Array.of(10, 900, 500, 900, 900),
    segment: Int32Array.of(0, 2, 1, 3, 0),
    ageMs: new Float64Array(5),
  };
  const out = new Float64Array(5);
  infiniteLlm.evict?.(INFINITE_LLM_DEFAULTS, view, out);
  assertEquals([...out.keys()].sort((a, b) => out[a] - out[b]), [2, 3, 1, 4, 0]);
});
