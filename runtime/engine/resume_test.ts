import { assert, assertEquals, assertGreater, assertThrows } from "@std/assert";
import fc from "fast-check";
import type { EngineRequest } from "./request.ts";
import { TestEngine, Transcript, undisturbed } from "./test_engine.ts";

const EOS = [90];

/** What a resumed request tells, apart from what Transcript checks of a whole one. */
function resume(request: EngineRequest, resumed: number[][]) {
  const test = new TestEngine({ blocks: 64, eos: EOS });
  const events: Parameters<Transcript["take"]>[0][] = [];
  test.engine.add({ ...request, resumed }, (event) => events.push(event));
  for (let steps = 0; test.engine.busy; steps++) {
    assert(test.step() || !test.engine.busy, "requests are live, yet a step did nothing");
    assert(steps < 500, "the engine never comes to an end");
  }
  return { test, events };
}

Deno.test("Engine goes on after the resumed tokens wherever a run was cut", () => {
  const seen = { held: 0, completed: 0, cuts: 0 };
  const property = fc.property(
    fc.record({
      prompt: fc.array(fc.nat(93), { minLength: 1, maxLength: 12 }),
      maxTokens: fc.nat(16),
      n: fc.integer({ min: 1, max: 3 }),
      greedy: fc.boolean(),
      seed: fc.nat(1000),
      minTokens: fc.nat(6),
      penalty: fc.boolean(),
      logprobs: fc.boolean(),
      promptLogprobs: fc.boolean(),
      includeStop: fc.boolean(),
      stopAt: fc.option(fc.record({ from: fc.nat(12), length: fc.integer({ min: 1, max: 4 }) }), { nil: undefined }),
      stopToken: fc.option(fc.nat(14), { nil: undefined }),
    }),
    fc.nat(60),
    (one, cutSeed) => {
      const sampling = {
        ...(one.greedy ? { temperature: 0 } : { topK: 12 }),
        seed: one.seed,
        minTokens: one.minTokens,
        includeStop: one.includeStop,
        ...(one.penalty && { frequencyPenalty: 1.5, repetitionPenalty: 1.2 }),
        ...(one.logprobs && { logprobs: 2 }),
        ...(one.promptLogprobs && { promptLogprobs: 1 }),
      };
      const plain: EngineRequest = { id: "a", prompt: one.prompt, maxTokens: one.maxTokens, n: one.n, sampling };
      const free = undisturbed(plain, { eos: EOS });
      // Stops that do occur, so that text is held back and choices end.
      const stop = one.stopAt && free.texts[0].slice(one.stopAt.from, one.stopAt.from + one.stopAt.length);
      const stopToken = one.stopToken === undefined ? undefined : free.ids[0].at(one.stopToken);
      const request: EngineRequest = {
        ...plain,
        sampling: {
          ...sampling,
          ...(stop && { stop: [stop, "~~"] }),
          ...(stopToken !== undefined && { stopTokenIds: [stopToken] }),
        },
      };
      const whole = undisturbed(request, { eos: EOS });
      const tokenEvents = whole.events.filter(({ kind }) => kind === "token").length;
      const cut = cutSeed % (tokenEvents + 1);
      seen.cuts += +(cut > 0);
      let tokens = 0;
      const at = cut === 0 ? 0 : whole.events.findIndex((event) => event.kind === "token" && ++tokens === cut) + 1;
      const before = whole.events.slice(0, at);
      const resumed = whole.ids.map((_, index) =>
        before.flatMap((event) => event.kind === "token" && event.index === index ? event.ids : [])
      );
      const { events } = resume(request, resumed);

      // The end of a choice that was told before is told again.
      const told = new Set(before.flatMap((event) => event.kind === "choice-end" ? [event.index] : []));
      seen.completed += told.size;
      const after = events.filter((event) => event.kind !== "choice-end" || !told.has(event.index));
      const both = new Transcript(one.n);
      for (const event of [...before, ...after]) both.take(event);
      assertEquals(both.ids, whole.ids);
      assertEquals(both.texts, whole.texts);
      assertEquals(both.logprobs, whole.logprobs);
      assertEquals(both.choiceEnds, whole.choiceEnds);
      assertEquals(both.prompt, whole.prompt);
      assertEquals(both.end?.usage.completionTokens, whole.end?.usage.completionTokens);
      const textBefore = before.reduce((sum, event) => sum + (event.kind === "token" ? event.text.length : 0), 0);
      if (one.n === 1 && textBefore < cut) seen.held++;
    },
  );
  fc.assert(property, { numRuns: 400, seed: 7 });
  assertGreater(seen.cuts, 200);
  assertGreater(seen.held, 10);
  assertGreater(seen.completed, 10);
});

Deno.test("Engine counts only the tokens it generates itself, and tells the usage of all", () => {
  const request: EngineRequest = { id: "a", prompt: [1, 2, 3], maxTokens: 9, sampling: { temperature: 0 } };
  const { ids } = undisturbed(request);
  const { test, events } = resume(request, [ids[0].slice(0, 4)]);
  assertEquals(test.engine.stats().generatedTokens, 5);
  assertEquals(events.filter(({ kind }) => kind === "token").length, 5);
  const end = events.at(-1);
  assertEquals(end?.kind === "end" ? end.usage : undefined, { promptTokens: 3, cachedTokens: 0, completionTokens: 9 });
});

Deno.test("Engine ends a request whose resumed tokens are all of it, without a step of the device", () => {
  const request: EngineRequest = { id: "a", prompt: [1, 2, 3], maxTokens: 4, n: 2, sampling: { temperature: 0 } };
  const { ids } = undisturbed(request);
  const { test, events } = resume(request, ids);
  assertEquals(events.map((event) => event.kind === "choice-end" ? event.reason : event.kind), [
    "length",
    "length",
    "end",
  ]);
  assertEquals(test.device.steps, 0);
});

Deno.test("Engine.cancel() ends a resumed request once before its first step", () => {
  const test = new TestEngine({ blocks: 16 });
  const events: string[] = [];
  const request: EngineRequest = { id: "a", prompt: [1], maxTokens: 2, n: 2, resumed: [[3, 4], [3]] };
  test.engine.add(request, ({ kind }) => events.push(kind));
  test.engine.cancel("a");
  assertEquals([test.step(), test.engine.busy], [true, false]);
  assertEquals(events, ["choice-end", "choice-end", "end"]);
});

Deno.test("Engine.add() refuses resumed tokens that no run can have", async (t) => {
  const request: EngineRequest = { id: "a", prompt: [1], maxTokens: 3, n: 2, sampling: { stopTokenIds: [7] } };
  const cases: [name: string, resumed: number[][], message: string][] = [
    ["a choice too few", [[1]], "wanted resumed tokens of 2 choices, got 1"],
    ["too many tokens", [[1], [1, 2, 3, 4]], "wanted at most 3 resumed tokens, got 4 of choice 1"],
    ["an id outside the vocabulary", [[97], []], "got 97 at index 0 of the resumed tokens of choice 0"],
    ["tokens after the end", [[7, 1], []], "wanted no token after the one that ends it"],
  ];
  for (const [name, resumed, message] of cases) {
    await t.step(name, () => {
      const test = new TestEngine({ blocks: 16 });
      assertThrows(() => test.engine.add({ ...request, resumed }, () => {}), RangeError, message);
      assertEquals(test.engine.busy, false);
    });
  }
});
