import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import * as fc from "fast-check";
import { PerformanceModel } from "./performance_model.ts";
import { type Probe, probes } from "./probes.ts";

const distinct = (steps: readonly Probe[]) => [...new Set(steps.map((step) => `${step.batch}/${step.contextTokens}`))];

Deno.test("probes() covers batch sizes with little context and the outer ones with much", () => {
  assertEquals(distinct(probes({ maxBatch: 6, kvTokens: 8192, maxContextTokens: 4096 })), [
    "1/64",
    "2/128",
    "4/256",
    "6/384",
    "1/2048",
    "6/8190",
  ]);
});

Deno.test("probes() stays within the pool, the batch and the context", () => {
  const limit = fc.integer({ min: 0, max: 5000 });
  fc.assert(fc.property(limit, limit, limit, (maxBatch, kvTokens, maxContextTokens) => {
    for (const { batch, contextTokens } of probes({ maxBatch, kvTokens, maxContextTokens: maxContextTokens + 1 })) {
      assert(batch >= 1 && batch <= maxBatch && contextTokens >= batch);
      assert(contextTokens <= kvTokens && contextTokens / batch <= maxContextTokens + 1);
    }
  }));
});

Deno.test("probes() make a model ready that knows an instance with a cold start", () => {
  const model = new PerformanceModel();
  const seen = new Set<string>();
  for (const step of probes({ maxBatch: 16, kvTokens: 32_768, maxContextTokens: 8192 })) {
    const key = JSON.stringify(step);
    const ms = (12 + step.batch + 2 * step.contextTokens / 1000) * (seen.has(key) ? 1 : 5);
    seen.add(key);
    model.observe({ ...step, tokens: step.batch, ms, remote: false });
  }
  assert(model.isReady);
  for (const [batch, context] of [[1, 1000], [8, 4000], [16, 20_000]]) {
    assertAlmostEquals(model.predict(batch, context) / (12 + batch + 2 * context / 1000), 1, 0.02);
  }
});
