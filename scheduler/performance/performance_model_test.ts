import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import * as fc from "fast-check";
import { PerformanceModel, type TimedStep } from "./performance_model.ts";
import { timedSteps, type TrueTimes } from "./test_steps.ts";

/** Flat up to batch 4, then 2.5 ms a sequence. */
const instance: TrueTimes = { restMs: (batch) => 20 + Math.max(0, batch - 4) * 2.5, attentionMs: 3 };

function taught(steps: Iterable<TimedStep>, model: PerformanceModel = new PerformanceModel()): PerformanceModel {
  for (const step of steps) model.observe(step);
  return model;
}

function assertKnows(model: PerformanceModel, { restMs, attentionMs }: TrueTimes, tolerance: number): void {
  const report = model.report();
  assert(report !== undefined);
  report.batch.forEach((batch, i) =>
    assertAlmostEquals(report.batchMs[i] / restMs(batch), 1, tolerance, `W(${batch})`)
  );
  assertAlmostEquals(report.attentionMs / attentionMs, 1, tolerance, "attention");
}

Deno.test("PerformanceModel recovers exact times exactly", () => {
  fc.assert(
    fc.property(
      fc.double({ min: 0.1, max: 500, noNaN: true }),
      fc.double({ min: 0, max: 20, noNaN: true }),
      fc.double({ min: 0.01, max: 50, noNaN: true }),
      (stepMs, sequenceMs, attentionMs) => {
        const times = { restMs: (batch: number) => stepMs + (batch - 1) * sequenceMs, attentionMs };
        const model = taught(timedSteps(200, times));
        for (const step of timedSteps(20, { ...times, seed: 9 })) {
          assertAlmostEquals(model.predict(step.batch, step.contextTokens) / step.ms, 1, 1e-6);
        }
      },
    ),
    { numRuns: 30 },
  );
});

Deno.test("PerformanceModel recovers the times of noisy steps and reports the noise as its error", () => {
  const model = taught(timedSteps(3000, { ...instance, noise: 0.05 }));
  assertKnows(model, instance, 0.02);
  const { batch = [], error = NaN, steps } = model.report() ?? {};
  assertEquals([batch[0], batch.at(-1), steps], [1, 16, 3000]);
  // Evenly spread noise of up to 5 % is 2.5 % on average.
  assertAlmostEquals(error, 0.025, 0.006);
});

Deno.test("PerformanceModel is not misled by pauses and a cold start", () => {
  let i = 0;
  const model = new PerformanceModel();
  for (const step of timedSteps(3000, { ...instance, noise: 0.03 })) {
    const factor = i < 30 ? 6 : i % 20 === 0 ? 10 + i % 7 : 1;
    model.observe({ ...step, ms: step.ms * factor });
    i++;
  }
  assertKnows(model, instance, 0.03);
});

Deno.test("PerformanceModel counts pauses in its error", () => {
  let i = 0;
  const model = new PerformanceModel();
  for (const step of timedSteps(1000, instance)) model.observe({ ...step, ms: step.ms * (i++ % 4 === 0 ? 2 : 1) });
  // Every fourth step takes twice the time: half of it was not predicted.
  assertAlmostEquals(model.report()?.error ?? NaN, 0.125, 0.01);
});

Deno.test("PerformanceModel reports a large error where the times follow another law", () => {
  const steps = [...timedSteps(1000, instance)].map((step) => ({
    ...step,
    ms: (step.contextTokens / 1000) ** 2 + 0.1,
  }));
  assert((taught(steps).report()?.error ?? 0) > 0.3);
});

Deno.test("PerformanceModel follows an instance that becomes slower", () => {
  const slower = { restMs: (batch: number) => 3 * instance.restMs(batch), attentionMs: 2 * instance.attentionMs };
  const model = taught(timedSteps(2000, instance));
  taught(timedSteps(2000, { ...slower, noise: 0.02, seed: 5 }), model);
  assertKnows(model, slower, 0.03);
});

Deno.test("PerformanceModel remembers other batch sizes through a long time of one", () => {
  const model = taught(timedSteps(1000, instance));
  taught(timedSteps(20_000, { ...instance, noise: 0.02, batches: [1] }), model);
  assertAlmostEquals(model.predict(16, 0) / instance.restMs(16), 1, 0.03);
});

Deno.test("PerformanceModel goes on in a line beyond the largest batch and never below nothing", () => {
  const rising = { restMs: (batch: number) => 2 + batch, attentionMs: 1 };
  assertAlmostEquals(taught(timedSteps(300, { ...rising, batches: [4, 8] })).predict(32, 1000), 35, 1e-6);
  const falling = { restMs: (batch: number) => 40 / batch, attentionMs: 1 };
  assertAlmostEquals(taught(timedSteps(300, { ...falling, batches: [1, 4] })).predict(64, 0), 10, 1e-6);
  const steep = { restMs: (batch: number) => 10 * (batch - 7), attentionMs: 1 };
  assert(taught(timedSteps(300, { ...steep, batches: [8, 16] })).predict(1, 1) > 0);
});

Deno.test("PerformanceModel is ready once contexts differ, and says so", () => {
  const model = new PerformanceModel();
  for (let i = 0; i < 40; i++) model.observe({ batch: 1, tokens: 1, contextTokens: 500, ms: 10, remote: false });
  assert(!model.isReady);
  assertEquals(model.report(), undefined);
  assertThrows(() => model.predict(1, 500), RangeError, "wanted steps of several contexts first, got 40 steps");
  for (let i = 0; i < 8; i++) model.observe({ batch: 1, tokens: 1, contextTokens: 1500, ms: 13, remote: false });
  assert(model.isReady);
  assertAlmostEquals(model.predict(1, 1000), 11.5, 1e-9);
  assertEquals(model.report()?.steps, 48);
});

Deno.test("PerformanceModel leaves out prefill, waits for others and times that are none", () => {
  const model = taught(timedSteps(500, instance));
  const before = model.report();
  for (const ms of [NaN, Infinity, 0, -1]) model.observe({ batch: 1, tokens: 1, contextTokens: 10, ms, remote: false });
  for (const batch of [0, -1, 1.5, NaN]) {
    model.observe({ batch, tokens: batch, contextTokens: 10, ms: 1, remote: false });
  }
  for (const contextTokens of [NaN, -1, Infinity]) {
    model.observe({ batch: 1, tokens: 1, contextTokens, ms: 1, remote: false });
  }
  model.observe({ batch: 1, tokens: 1, contextTokens: 10, ms: 5, remote: true, waitMs: 5 });
  model.observe({ batch: 1, tokens: 1, contextTokens: 10, ms: 500, remote: true });
  for (let i = 0; i < 500; i++) model.observe({ batch: 1, tokens: 256, contextTokens: 256, ms: 900, remote: false });
  assertEquals(model.report(), before);
  for (const step of timedSteps(500, instance)) model.observe({ ...step, ms: step.ms + 70, remote: true, waitMs: 70 });
  assertKnows(model, instance, 1e-6);
});
