import { assert, assertEquals } from "@std/assert";
import * as fc from "fast-check";
import { StepSamples } from "./step_samples.ts";

Deno.test("StepSamples keeps the latest eight of each situation", () => {
  const samples = new StepSamples(100);
  samples.add({ batch: 8, contextTokens: 5000, ms: 1, step: 0 });
  for (let step = 1; step <= 20; step++) samples.add({ batch: 1, contextTokens: 100, ms: 1, step });
  assertEquals(samples.all().map(({ step }) => step), [0, 13, 14, 15, 16, 17, 18, 19, 20]);
  assertEquals(samples.size, 9);
});

Deno.test("StepSamples forgets the situation seen least lately when it is full", () => {
  const samples = new StepSamples(3);
  [1, 64, 1, 4, 16].forEach((batch, step) => samples.add({ batch, contextTokens: 0, ms: 1, step }));
  assertEquals(samples.all().map(({ batch }) => batch), [4, 16]);
});

Deno.test("StepSamples never keeps more than its capacity, and always the latest", () => {
  const step = fc.record({ batch: fc.integer({ min: 1, max: 512 }), contextTokens: fc.nat() });
  fc.assert(fc.property(fc.integer({ min: 8, max: 60 }), fc.array(step, { maxLength: 300 }), (capacity, steps) => {
    const samples = new StepSamples(capacity);
    steps.forEach((sample, at) => {
      samples.add({ ...sample, ms: 1, step: at });
      assert(samples.all().some(({ step }) => step === at));
    });
    assert(samples.size <= capacity);
    assertEquals(samples.all().length, samples.size);
  }));
});
