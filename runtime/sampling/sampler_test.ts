import { assert, assertAlmostEquals, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import type { SamplingParams } from "../engine/request.ts";
import { uniform } from "./random.ts";
import { Sampler, tokenLogprob } from "./sampler.ts";
import { rowOf, testRow } from "./test_row.ts";

function samplerOf(
  params: SamplingParams,
  options: {
    readonly vocab: number;
    readonly prompt?: readonly number[];
    readonly eos?: readonly number[];
    readonly seed?: number;
    readonly fastPath?: boolean;
    readonly output?: readonly number[];
  },
): Sampler {
  const sampler = new Sampler(params, { prompt: [], eos: [], seed: 0, ...options });
  options.output?.forEach((id) => sampler.accept(id));
  return sampler;
}

/** The definition in the module's head, word for word, over plain arrays. */
function reference(
  logits: readonly number[],
  params: SamplingParams,
  history: { readonly prompt: readonly number[]; readonly output: readonly number[]; readonly seed: number },
): number {
  const repetition = params.repetitionPenalty ?? 1;
  const adjusted = logits.map((raw, id) => {
    let logit = raw + (params.logitBias?.get(id) ?? 0);
    const count = history.output.filter((other) => other === id).length;
    if (history.prompt.includes(id) || count > 0) logit = logit > 0 ? logit / repetition : logit * repetition;
    if (count > 0) logit -= (params.presencePenalty ?? 0) + (params.frequencyPenalty ?? 0) * count;
    return Math.fround(logit);
  });
  const order = adjusted.map((_, id) => id).filter((id) => adjusted[id] > -Infinity)
    .sort((a, b) => adjusted[b] - adjusted[a] || a - b);
  if (params.temperature === 0) return order[0];
  const weight = (id: number) => Math.exp((adjusted[id] - adjusted[order[0]]) / (params.temperature ?? 1));
  const mass = (ids: readonly number[]) => ids.reduce((sum, id) => sum + weight(id), 0);
  let kept = params.topK ? order.slice(0, params.topK) : order;
  if ((params.topP ?? 1) < 1) {
    const target = (params.topP ?? 1) * mass(kept);
    let size = 1;
    while (size < kept.length && mass(kept.slice(0, size)) < target) size++;
    kept = kept.slice(0, size);
  }
  const minP = params.minP ?? 0;
  const distance = (id: number) => (adjusted[order[0]] - adjusted[id]) * (1 / (params.temperature ?? 1));
  if (minP > 0) kept = kept.filter((id) => distance(id) <= -Math.log(minP));
  const target = uniform(history.seed, history.output.length) * mass(kept);
  let sum = 0;
  return kept.find((id) => (sum += weight(id)) > target) ?? kept[kept.length - 1];
}

const finiteLogit = fc.double({ min: -30, max: 30, noNaN: true }).map(Math.fround);
const tiedLogit = fc.integer({ min: -6, max: 6 }).map((level) => level / 2);
const sparseLogit = fc.oneof(tiedLogit, fc.constant(-Infinity));
const rowLogits = (vocab: number) =>
  fc.oneof(
    ...[finiteLogit, tiedLogit, sparseLogit].map((logit) => fc.array(logit, { minLength: vocab, maxLength: vocab })),
    fc.record({ seed: fc.nat(1000), spread: fc.double({ min: 0.01, max: 6, noNaN: true }) })
      .map(({ seed, spread }) => Array.from(testRow({ vocab, seed, spread }).logits)),
  ).filter((logits) => logits.some((logit) => logit > -Infinity));
const maybe = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined });
const ids = (vocab: number, maxLength: number) => fc.array(fc.nat(vocab - 1), { maxLength });

const samplingCase = fc.integer({ min: 1, max: 300 }).chain((vocab) =>
  fc.record({
    logits: rowLogits(vocab),
    prompt: ids(vocab, 40),
    output: ids(vocab, 40),
    seed: fc.nat(),
    params: fc.record({
      temperature: maybe(fc.constantFrom(0, 1e-6, 0.3, 0.7, 1, 1.3, 2)),
      topK: maybe(fc.constantFrom(0, 1, 5, 40, 64, 65, 200)),
      topP: maybe(fc.constantFrom(0.01, 0.5, 0.9, 0.99, 0.9999, 1)),
      minP: maybe(fc.constantFrom(0, 0.01, 0.3, 1)),
      repetitionPenalty: maybe(fc.constantFrom(0.8, 1, 1.1, 3)),
      presencePenalty: maybe(fc.constantFrom(-2, 0, 0.5)),
      frequencyPenalty: maybe(fc.constantFrom(-0.5, 0, 0.5)),
      logitBias: maybe(
        fc.array(fc.tuple(fc.nat(vocab - 1), fc.constantFrom(-100, -1, 2, 100))).map((pairs) => new Map(pairs)),
      ),
    }, { requiredKeys: [] }) as fc.Arbitrary<SamplingParams>,
  })
);

Deno.test("Sampler.sample() chooses the same token on both paths, the one of the definition", () => {
  fc.assert(
    fc.property(samplingCase, ({ logits, params, prompt, output, seed }) => {
      const row = rowOf(logits);
      const options = { vocab: logits.length, prompt, output, seed };
      const full = samplerOf(params, { ...options, fastPath: false }).sample(row).id;
      assertEquals(samplerOf(params, options).sample(row).id, full);
      assertEquals(full, reference(logits, params, { prompt, output, seed }));
    }),
    { numRuns: 2000, seed: 11 },
  );
});

Deno.test("Sampler.sample() chooses the same token on both paths over a large vocabulary", () => {
  const row = testRow({ vocab: 5000, seed: 3, spread: 2.2, peak: 10 });
  const variants: SamplingParams[] = [
    {},
    { temperature: 0.6 },
    { temperature: 1.5 },
    { topP: 0.95 },
    { topK: 100, topP: 0.8 },
    { minP: 0.02, temperature: 1.2 },
    { presencePenalty: 3, topP: 0.99 },
  ];
  for (const params of variants) {
    const fast = samplerOf(params, { vocab: 5000, seed: 5 });
    const full = samplerOf(params, { vocab: 5000, seed: 5, fastPath: false });
    for (let i = 0; i < 200; i++) {
      const { id } = full.sample(row);
      assertEquals(fast.sample(row).id, id);
      fast.accept(id);
      full.accept(id);
    }
  }
});

Deno.test("Sampler.sample() follows the softmax distribution", () => {
  const logits = [2, 1, 0.5, 0, -1, -1, -2, -8];
  const row = rowOf(logits);
  const draws = 20_000;
  for (const temperature of [0.7, 1, 2]) {
    const counts = logits.map(() => 0);
    const sampler = samplerOf({ temperature }, { vocab: logits.length, seed: 99 });
    for (let i = 0; i < draws; i++) {
      const { id } = sampler.sample(row);
      counts[id]++;
      sampler.accept(id);
    }
    const weights = logits.map((logit) => Math.exp(logit / temperature));
    const total = weights.reduce((sum, weight) => sum + weight);
    const chiSquare = counts.reduce((sum, count, id) => {
      const expected = draws * weights[id] / total;
      return sum + (count - expected) ** 2 / expected;
    }, 0);
    // 7 degrees of freedom: 24.3 is passed by chance once in a thousand seeds; the seed is fixed.
    assert(chiSquare < 24.3, `chi-square ${chiSquare} at temperature ${temperature}`);
  }
});

Deno.test("Sampler.sample() draws the tail beyond the candidates as often as it should", () => {
  const vocab = 2000;
  const row = rowOf(new Float32Array(vocab));
  const sampler = samplerOf({}, { vocab, seed: 4 });
  const quarters = [0, 0, 0, 0];
  for (let i = 0; i < 2000; i++) {
    const { id } = sampler.sample(row);
    quarters[Math.floor(id / 500)]++;
    sampler.accept(id);
  }
  const chiSquare = quarters.reduce((sum, count) => sum + (count - 500) ** 2 / 500, 0);
  // 3 degrees of freedom, one in a thousand.
  assert(chiSquare < 16.3, `chi-square ${chiSquare}`);
});

Deno.test("Sampler.sample() takes the lowest id among equal largest logits when greedy", () => {
  assertEquals(samplerOf({ temperature: 0 }, { vocab: 4 }).sample(rowOf([1, 3, 3, 2])).id, 1);
});

Deno.test("Sampler.sample() applies penalties by hand-computed values", () => {
  const greedy = (params: SamplingParams, logits: number[], history: { prompt?: number[]; output?: number[] }) =>
    samplerOf({ temperature: 0, ...params }, { vocab: logits.length, ...history }).sample(rowOf(logits)).id;
  // 3 / 2 = 1.5 falls below 2; without the prompt token it stays ahead.
  assertEquals(greedy({ repetitionPenalty: 2 }, [3, 2], { prompt: [0] }), 1);
  assertEquals(greedy({ repetitionPenalty: 2 }, [3, 2], { prompt: [] }), 0);
  // -1 * 2 = -2 falls below -1.5: a negative logit is multiplied.
  assertEquals(greedy({ repetitionPenalty: 2 }, [-1, -1.5], { output: [0] }), 1);
  // Presence counts once, and only for the output.
  assertEquals(greedy({ presencePenalty: 0.75 }, [3, 2], { output: [0, 0, 0] }), 0);
  assertEquals(greedy({ presencePenalty: 1.25 }, [3, 2], { output: [0] }), 1);
  assertEquals(greedy({ presencePenalty: 1.25 }, [3, 2], { prompt: [0] }), 0);
  // Frequency counts each occurrence.
  assertEquals(greedy({ frequencyPenalty: 0.75 }, [3, 2], { output: [0] }), 0);
  assertEquals(greedy({ frequencyPenalty: 0.75 }, [3, 2], { output: [0, 0] }), 1);
  // Bias comes before the penalty: (1 + 3) / 2 = 2 is ahead of 1.9; 1 / 2 + 3 would be 3.5.
  assertEquals(greedy({ logitBias: new Map([[0, 3]]), repetitionPenalty: 2 }, [1, 1.9], { prompt: [0] }), 0);
  assertEquals(greedy({ logitBias: new Map([[0, 3]]), repetitionPenalty: 2 }, [1, 2.1], { prompt: [0] }), 1);
});

Deno.test("Sampler.sample() never ends the text before minTokens", () => {
  const row = rowOf([9, 8, 1]);
  const sampler = samplerOf({ temperature: 0, minTokens: 2, stopTokenIds: [1] }, { vocab: 3, eos: [0] });
  const chosen = Array.from({ length: 3 }, () => {
    const { id } = sampler.sample(row);
    sampler.accept(id);
    return id;
  });
  assertEquals(chosen, [2, 2, 0]);
});

Deno.test("Sampler.sample() leaves end ids alone before minTokens when they end nothing", () => {
  const sampler = samplerOf({ temperature: 0, minTokens: 2, ignoreEos: true }, { vocab: 3, eos: [0] });
  assertEquals(sampler.sample(rowOf([9, 8, 1])).id, 0);
});

Deno.test("Sampler.sample() repeats its choice, and a new sampler continues where another stopped", () => {
  const row = testRow({ vocab: 500, seed: 1, spread: 1 });
  const params = { temperature: 0.9, frequencyPenalty: 0.3, repetitionPenalty: 1.2 };
  const first = samplerOf(params, { vocab: 500, prompt: [3, 4], seed: 42 });
  const chosen = Array.from({ length: 30 }, () => {
    const { id } = first.sample(row);
    assertEquals(first.sample(row).id, id);
    first.accept(id);
    return id;
  });
  const second = samplerOf(params, { vocab: 500, prompt: [3, 4], seed: 42, output: chosen.slice(0, 17) });
  for (const id of chosen.slice(17)) {
    assertEquals(second.sample(row).id, id);
    second.accept(id);
  }
  const other = samplerOf(params, { vocab: 500, prompt: [3, 4], seed: 43 });
  const others = Array.from({ length: 30 }, () => {
    const { id } = other.sample(row);
    other.accept(id);
    return id;
  });
  assertNotEquals(others, chosen);
});

Deno.test("Sampler.sample() does not write into the row", () => {
  const row = testRow({ vocab: 300, seed: 1, spread: 1 });
  const before = structuredClone(row);
  const sampler = samplerOf({ repetitionPenalty: 1.5, topP: 0.9999 }, {
    vocab: 300,
    prompt: [1, 2, 3],
    fastPath: false,
  });
  sampler.accept(sampler.sample(row).id);
  assertEquals(row, before);
});

Deno.test("Sampler.sample() refuses rows that hold no distribution and says why", () => {
  const sampler = samplerOf({}, { vocab: 3 });
  const message = (logits: number[]) => assertThrows(() => sampler.sample(rowOf(logits)), RangeError).message;
  assertEquals(message([1, NaN, 2]), "Cannot sample a token: wanted finite logits, got NaN for token 1");
  assertEquals(message([1, 2, Infinity]), "Cannot sample a token: wanted finite logits, got Infinity for token 2");
  assertEquals(
    message([-Infinity, -Infinity, -Infinity]),
    "Cannot sample a token: wanted a token with a logit above -Infinity, got none",
  );
  assertEquals(message([1, 2]), "Cannot sample a token: wanted 3 logits, got 2");
  const banned = samplerOf({ minTokens: 1, stopTokenIds: [0] }, { vocab: 3 });
  assertThrows(() => banned.sample(rowOf([1, -Infinity, -Infinity])), RangeError, "got none");
});

Deno.test("Sampler() refuses a bias for a token outside the vocabulary", () => {
  assertThrows(() => samplerOf({ logitBias: new Map([[3, 1]]) }, { vocab: 3 }), RangeError, "from 0 to 2");
});

Deno.test("Sampler.sample() survives extreme temperatures and gaps between logits", () => {
  const row = rowOf([3e38, -3e38, 0, -Infinity]);
  for (const temperature of [1e-320, 1e-9, 1, 1e9]) {
    for (const fastPath of [true, false]) {
      assertEquals(samplerOf({ temperature, topK: 3 }, { vocab: 4, fastPath }).sample(row).id, 0);
    }
  }
});

Deno.test("Sampler.sample() reports log-probabilities of the model, not of the adjusted logits", () => {
  const row = rowOf([2, 1, 0]);
  const { id, logprob } = samplerOf({ temperature: 0, logprobs: 2, logitBias: new Map([[2, 100]]) }, { vocab: 3 })
    .sample(row);
  assertEquals(id, 2);
  assertEquals(logprob?.rank, 3);
  assertAlmostEquals(logprob?.logprob ?? NaN, -Math.log(1 + Math.E + Math.E ** 2), 1e-6);
  assertEquals(logprob?.top.map((rival) => rival.id), [0, 1]);
});

Deno.test("tokenLogprob() ranks tokens beyond the candidates in the total order", () => {
  const row = rowOf(Array.from({ length: 200 }, (_, id) => -Math.floor(id / 2)));
  assertEquals([0, 1, 63, 64, 151, 199].map((id) => tokenLogprob(row, id, 0).rank), [1, 2, 64, 65, 152, 200]);
  assertEquals(tokenLogprob(row, 5, 20).top.length, 20);
});

Deno.test("Sampler.sample() decides from the candidates alone where they suffice", () => {
  const row = testRow({ vocab: 1000, seed: 6, spread: 1, peak: 12 });
  // NaN outside the candidates would be noticed by a pass over the row.
  const poisoned = { ...row, logits: row.logits.map((logit, id) => row.top.ids.includes(id) ? logit : NaN) };
  for (const params of [{ temperature: 0 }, {}, { temperature: 0.8, topP: 0.9 }, { topK: 40 }, { minP: 0.1 }]) {
    samplerOf(params, { vocab: 1000, seed: 2 }).sample(poisoned);
    assertThrows(() => samplerOf(params, { vocab: 1000, seed: 2, fastPath: false }).sample(poisoned), RangeError);
  }
});

Deno.test("Sampler.next says how the next token is chosen where no token's logit is changed", () => {
  const of = (params: SamplingParams, output: readonly number[] = []) =>
    samplerOf(params, { vocab: 9, seed: 5, output });
  assertEquals(of({ temperature: 0 }, [1, 2]).next, { mode: { kind: "greedy" }, accepted: 2 });
  assertEquals(of({ temperature: 0.5, topK: 3, topP: 0.9 }, [4]).next, {
    mode: { kind: "draw", inverseTemperature: 2, topK: 3, topP: 0.9, depth: Infinity, seed: 5 },
    accepted: 1,
  });
  const host: SamplingParams[] = [
    { temperature: 0, repetitionPenalty: 1.1 },
    { presencePenalty: 0.1 },
    { frequencyPenalty: 0.1 },
    { logitBias: new Map([[1, 2]]) },
    { minTokens: 1, stopTokenIds: [3] },
  ];
  for (const params of host) assertEquals(of(params).next, { mode: { kind: "host" }, accepted: 0 });
});
