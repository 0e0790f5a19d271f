import { assertEquals, assertGreater } from "@std/assert";
import fc from "fast-check";
import { testGreedy } from "./test_device.ts";
import { TestEngine, type Transcript } from "./test_engine.ts";

Deno.test("Engine.step() tells a GPU what comes next, and asks for that", () => {
  const test = new TestEngine({ blocks: 200, ahead: true, mixedStepTokens: 12 });
  const prompts = [31, 7, 18, 40, 3].map((length, index) => Array.from({ length }, (_, i) => (7 * index + i) % 90));
  const transcripts = prompts.map((prompt, index) =>
    test.add({ id: `${index}`, prompt, maxTokens: 20 + index, sampling: { temperature: 0 } })
  );
  test.drain();
  assertEquals(
    transcripts.map(({ ids: [ids] }) => ids),
    prompts.map((prompt, index) => testGreedy(prompt, 20 + index)),
  );
  assertEquals(test.device.foreseen.wrong, 0);
  assertGreater(test.device.foreseen.right, 20);
});

Deno.test("Engine.step() gives the tokens of undisturbed requests whatever a GPU began ahead", () => {
  const arrival = fc.record({
    gap: fc.nat(4),
    prompt: fc.integer({ min: 1, max: 30 }),
    shared: fc.boolean(),
    maxTokens: fc.integer({ min: 1, max: 12 }),
    temperature: fc.constantFrom(0, 0, 1),
    promptLogprobs: fc.boolean(),
    n: fc.constantFrom(1, 1, 2),
    cancelAfter: fc.option(fc.nat(12), { nil: undefined }),
  });
  const property = fc.property(
    fc.array(arrival, { maxLength: 10, size: "max" }),
    fc.integer({ min: 12, max: 40 }),
    fc.integer({ min: 8, max: 24 }),
    (arrivals, blocks, mixedStepTokens) => {
      const test = new TestEngine({ blocks, ahead: true, mixedStepTokens, maxModelLen: 44 });
      const running: { prompt: number[]; maxTokens: number; exact: boolean; transcript: Transcript }[] = [];
      const cancels: { id: string; atMs: number }[] = [];
      const step = () => {
        test.step();
        for (const { id, atMs } of cancels) if (test.nowMs >= atMs) test.engine.cancel(id);
      };
      for (
        const [index, { gap, shared, maxTokens, temperature, promptLogprobs, n, ...arrival }] of arrivals.entries()
      ) {
        for (let i = 0; i < gap; i++) step();
        const id = `${index}`;
        const prompt = Array.from({ length: arrival.prompt }, (_, i) => shared ? i : (31 * index + i) % 90);
        const sampling = { temperature, ...(promptLogprobs && { promptLogprobs: 1 }) };
        const transcript = test.add({ id, prompt, maxTokens, n, sampling });
        running.push({ prompt, maxTokens, exact: temperature === 0 && arrival.cancelAfter === undefined, transcript });
        if (arrival.cancelAfter !== undefined) cancels.push({ id, atMs: test.nowMs + arrival.cancelAfter });
      }
      for (let i = 0; test.engine.busy && i < 2_000; i++) step();
      test.drain();
      for (const { prompt, maxTokens, exact, transcript } of running) {
        if (!exact) continue;
        for (const ids of transcript.ids) assertEquals(ids, testGreedy(prompt, maxTokens));
      }
    },
  );
  fc.assert(property, { numRuns: 200 });
});
