import { assert, assertEquals, assertGreater } from "@std/assert";
import fc from "fast-check";
import type { EngineRequest, FinishReason } from "./request.ts";
import { testGreedy, testLogits } from "./test_device.ts";
import { TestEngine, type Transcript, undisturbed } from "./test_engine.ts";

interface Arrival {
  readonly gap: number;
  readonly shared: number;
  readonly own: number[];
  readonly maxTokens: number;
  readonly n: number;
  readonly greedy: boolean;
  readonly promptLogprobs: boolean;
  readonly cancelAfter: number | undefined;
}

const arrival: fc.Arbitrary<Arrival> = fc.record({
  gap: fc.nat(3),
  shared: fc.nat(2).map((blocks) => 4 * blocks),
  own: fc.array(fc.nat(96), { minLength: 1, maxLength: 6 }),
  maxTokens: fc.nat(24),
  n: fc.integer({ min: 1, max: 3 }),
  greedy: fc.boolean(),
  promptLogprobs: fc.boolean(),
  cancelAfter: fc.option(fc.nat(30), { nil: undefined, freq: 3 }),
});

function toRequest(one: Arrival, id: string): EngineRequest {
  const prefix = Array.from({ length: one.shared }, (_, i) => i);
  return {
    id,
    prompt: [...prefix, ...one.own],
    maxTokens: one.maxTokens,
    n: one.n,
    sampling: {
      ...(one.greedy ? { temperature: 0 } : { seed: one.own.length, topK: 20 }),
      ...(one.promptLogprobs && { promptLogprobs: 1 }),
    },
  };
}

/** A cancelled request told the beginning of what it would have told. */
function assertBeginning(actual: number[], whole: number[]): void {
  assertEquals(actual, whole.slice(0, actual.length));
}

Deno.test("Engine gives every request its undisturbed tokens under any arrivals, ranks, pools and cancellations", () => {
  let preemptions = 0;
  let hits = 0;
  const property = fc.property(
    fc.array(arrival, { minLength: 1, maxLength: 10, size: "max" }),
    fc.infiniteStream(fc.nat(0xffff)),
    fc.record({
      blocks: fc.integer({ min: 10, max: 14 }),
      maxStepTokens: fc.integer({ min: 6, max: 24 }),
      maxLogitRows: fc.integer({ min: 6, max: 16 }),
      maxBatch: fc.integer({ min: 1, max: 6 }),
    }),
    (arrivals, noise, sizes) => {
      const test = new TestEngine(sizes);
      test.policy.ranker = (queue) => {
        const keys = Array.from({ length: queue.length }, () => noise.next().value ?? 0);
        return Int32Array.from(queue.id.keys()).sort((a, b) => keys[a] - keys[b]);
      };
      const live: { request: EngineRequest; transcript: Transcript; cancelAtMs: number }[] = [];
      const step = () => {
        assert(test.step() || !test.engine.busy, "requests are live, yet a step did nothing");
        for (const { request, cancelAtMs } of live) if (test.nowMs >= cancelAtMs) test.engine.cancel(request.id);
        test.engine.checkIntegrity();
      };
      for (const [i, one] of arrivals.entries()) {
        for (let gap = 0; gap < one.gap; gap++) step();
        const request = toRequest(one, `${i}`);
        const cancelAtMs = test.nowMs + (one.cancelAfter ?? Infinity);
        live.push({ request, transcript: test.add(request), cancelAtMs });
      }
      while (test.engine.busy) step();
      assertEquals(test.engine.stats().blocks.owned, 0);
      preemptions += test.engine.stats().preemptions;
      hits += test.engine.stats().prefixHits;
      for (const { request, transcript } of live) {
        const alone = undisturbed(request);
        const cancelled = transcript.choiceEnds.some(({ reason }) => reason === "cancelled");
        transcript.ids.forEach((ids, choice) => assertBeginning(ids, alone.ids[choice]));
        if (cancelled) continue;
        assertEquals(transcript.ids, alone.ids);
        assertEquals(transcript.texts, alone.texts);
        assertEquals(transcript.prompt, alone.prompt);
        assertEquals(transcript.choiceEnds, alone.choiceEnds);
      }
    },
  );
  fc.assert(property, { numRuns: 100 });
  assertGreater(preemptions, 10);
  assertGreater(hits, 100);
});

Deno.test("64 mixed requests each end once and leave no block owned", () => {
  const test = new TestEngine({ blocks: 40, maxBatch: 12, maxQueue: 64 });
  const transcripts: Transcript[] = [];
  const expected: FinishReason[] = [];
  let refused = 0;
  for (let i = 0; i < 64; i++) {
    const prompt = Array.from({ length: 1 + (7 * i) % 40 }, (_, j) => (i % 5 + 3 * j) % 94);
    const request = { id: `${i}`, prompt, maxTokens: 1 + i % 17, n: 1 + i % 3, sampling: { temperature: 0 } };
    if (i % 16 === 15) {
      try {
        test.add({ ...request, maxTokens: 500 });
      } catch {
        refused++;
      }
      continue;
    }
    transcripts.push(test.add(request));
    expected.push(i % 8 === 3 ? "cancelled" : "length");
    test.step();
    if (i % 8 === 3) test.engine.cancel(request.id);
  }
  test.drain();
  assertEquals(refused, 4);
  assertEquals(transcripts.map(({ choiceEnds }) => choiceEnds[0].reason), expected);
  const generated = transcripts.reduce((sum, { end }) => sum + (end?.usage.completionTokens ?? 0), 0);
  assertEquals(test.engine.stats().generatedTokens, generated);
});

Deno.test("testGreedy() follows the logits of the whole history", () => {
  const [first, second] = testGreedy([3, 1, 2], 2);
  const logits = testLogits([3, 1, 2, first]);
  assertEquals(logits[second], Math.max(...logits));
  assert(testGreedy([3, 1, 2], 8).join() !== testGreedy([3, 2, 1], 8).join());
});
