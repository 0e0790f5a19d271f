import { assert, assertEquals } from "@std/assert";
import { filtersOf } from "../../runtime/sampling/filters.ts";
import { uniform } from "../../runtime/sampling/random.ts";
import { Sampler } from "../../runtime/sampling/sampler.ts";
import { testRow } from "../../runtime/sampling/test_row.ts";
import { drawReference, sampleReference } from "./reference.ts";
import { SEEDS } from "./spec.ts";

Deno.test("drawReference() gives the numbers of the sampler's stream", () => {
  for (const seed of [0, 1, -1, 2 ** 32 + 7, -(2 ** 40), 2 ** 53 - 1]) {
    for (const index of [0, 1, 2 ** 32, 2 ** 45 + 3]) {
      assertEquals(drawReference(seed, index), uniform(seed, index), `number ${index} of ${seed}`);
    }
  }
});

Deno.test("sampleReference() chooses what the sampler chooses wherever it decides, and decides most rows", () => {
  const params = [
    {},
    { temperature: 0.7 },
    { temperature: 1.4, topK: 50 },
    { temperature: 0.3, topP: 0.9 },
    { topK: 1 },
    { topK: 200, topP: 0.8 },
    { minP: 0.05 },
    { temperature: 0.8, topK: 20, topP: 0.95, minP: 0.02 },
  ];
  let decided = 0;
  let rows = 0;
  for (const [index, sampling] of params.entries()) {
    const { inverseTemperature, topK, topP, depth } = filtersOf(sampling);
    for (let trial = 0; trial < 60; trial++) {
      const vocab = [3, 64, 65, 3000][trial % 4];
      const seed = SEEDS.test + 1000 * index + trial;
      const row = testRow({ vocab, seed, spread: 1 + trial % 5, peak: trial % 3 === 0 ? 12 : undefined });
      const outcome = sampleReference(
        { mode: { kind: "draw", inverseTemperature, topK, topP, depth, seed }, accepted: 0 },
        { summary: { logSumExp: row.logSumExp, ...row.top }, vocab },
      );
      const chosen = new Sampler(sampling, { vocab, prompt: [], eos: [], seed }).sample(row).id;
      rows++;
      if (outcome.kind !== "chosen") {
        assertEquals(outcome, { kind: "undecided" });
        continue;
      }
      decided++;
      assertEquals(outcome, { kind: "chosen", id: chosen, logit: row.logits[chosen] });
    }
  }
  assert(decided > 0.8 * rows, `${decided} of ${rows} rows are decided`);
  assert(decided < rows, "some rows need all logits");
});

Deno.test("sampleReference() takes the first token, leaves rows to the host and names bad logits", () => {
  const row = testRow({ vocab: 100, seed: SEEDS.test, spread: 2 });
  const summary = { logSumExp: row.logSumExp, ...row.top };
  const [id, logit] = [row.top.ids[0], row.top.logits[0]];
  const sample = (kind: "greedy" | "host", lse = row.logSumExp) =>
    sampleReference({ mode: { kind }, accepted: 0 }, { summary: { ...summary, logSumExp: lse }, vocab: 100 });
  assertEquals(sample("greedy"), { kind: "chosen", id, logit });
  assertEquals(sample("host"), { kind: "host" });
  for (const lse of [NaN, Infinity, -Infinity]) assertEquals(sample("greedy", lse), { kind: "bad logits" });
});
