import { assert, assertAlmostEquals, assertEquals, assertGreater, assertThrows } from "@std/assert";
import { CapacityError, type EngineRequest } from "./request.ts";
import { testGreedy, testLogits } from "./test_device.ts";
import { TestEngine, Transcript, undisturbed } from "./test_engine.ts";

const GREEDY = { temperature: 0 };

function tokens(length: number, first = 0): number[] {
  return Array.from({ length }, (_, i) => (first + 7 * i) % 94);
}

function greedy(id: string, prompt: number[], maxTokens: number): EngineRequest {
  return { id, prompt, maxTokens, sampling: GREEDY };
}

Deno.test("Engine.step() decodes a request to its length", () => {
  const test = new TestEngine({ blocks: 16 });
  const transcript = test.add(greedy("a", tokens(5), 6));
  test.drain();
  assertEquals(transcript.ids, [testGreedy(tokens(5), 6)]);
  assertEquals(transcript.texts[0], String.fromCharCode(...transcript.ids[0].map((id) => 33 + id)));
  assertEquals(transcript.choiceEnds[0].reason, "length");
  assertEquals(transcript.end?.usage, { promptTokens: 5, cachedTokens: 0, completionTokens: 6 });
  assertEquals(test.step(), false);
});

Deno.test("Engine.step() batches prefill chunks and decodes without changing any token", () => {
  const test = new TestEngine({ blocks: 64, maxStepTokens: 8, maxBatch: 5 });
  const requests = [3, 40, 1, 17, 8, 25].map((length, i) => greedy(`${i}`, tokens(length, i), 5 + i));
  const transcripts = requests.map((request) => test.add(request));
  test.drain();
  assertEquals(
    transcripts.map(({ ids }) => ids[0]),
    requests.map(({ prompt, maxTokens }) => testGreedy(prompt, maxTokens)),
  );
  assertGreater(94 + 45, test.engine.stats().steps, "each step computed one sequence only");
});

Deno.test("Engine.step() gives the same tokens when blocks run out and sequences are preempted", () => {
  for (const prefixCache of [true, false]) {
    const test = new TestEngine({ blocks: 9, prefixCache });
    const requests = [0, 1, 2, 3].map((i) => greedy(`${i}`, tokens(6, i), 20));
    const transcripts = requests.map((request) => test.add(request));
    test.drain();
    assertGreater(test.engine.stats().preemptions, 0);
    assertEquals(transcripts.map(({ ids }) => ids[0]), requests.map(({ prompt }) => testGreedy(prompt, 20)));
    assertEquals(test.engine.stats().promptTokens, 24, "recomputed prompt tokens are not counted again");
  }
});

Deno.test("Engine.step() samples the same tokens for a seed whatever the batch", () => {
  const seeded = { id: "seeded", prompt: tokens(9), maxTokens: 12, n: 2, sampling: { seed: 42, topP: 0.9 } };
  const alone = undisturbed(seeded);
  const test = new TestEngine({ blocks: 12, maxStepTokens: 8 });
  for (let i = 0; i < 4; i++) test.add({ id: `${i}`, prompt: tokens(7, i), maxTokens: 15, sampling: { seed: i } });
  const together = test.add(seeded);
  test.drain();
  assertGreater(test.engine.stats().preemptions, 0);
  assertEquals(together.ids, alone.ids);
  assert(alone.ids[0].join() !== alone.ids[1].join(), "both choices have the same seed");
});

Deno.test("Engine.step() draws a seed where the request has none", () => {
  const request = { id: "a", prompt: tokens(4), maxTokens: 12 };
  const [low, high] = [undisturbed(request, { random: () => 0.1 }), undisturbed(request, { random: () => 0.9 })];
  assert(low.ids[0].join() !== high.ids[0].join());
  assertEquals(undisturbed(request, { random: () => 0.1 }).ids, low.ids);
});

Deno.test("Engine shares the KV of equal prefixes and reports it", () => {
  const test = new TestEngine({ blocks: 64 });
  const prompt = tokens(22);
  const first = test.add(greedy("first", prompt, 6));
  test.drain();
  const again = test.add(greedy("again", prompt, 6));
  const longer = test.add(greedy("longer", [...prompt, ...testGreedy(prompt, 6), 1], 2));
  test.drain();
  assertEquals([first, again, longer].map(({ end }) => end?.usage.cachedTokens), [0, 20, 24]);
  assertEquals(again.ids, first.ids);
  assertEquals(longer.ids[0], testGreedy([...prompt, ...testGreedy(prompt, 6), 1], 2));
  const { prefixQueries, prefixHits } = test.engine.stats();
  assertEquals([prefixQueries, prefixHits], [22 + 22 + 29, 44]);
});

Deno.test("Engine shares no KV between cache salts, and does within one", () => {
  const test = new TestEngine({ blocks: 64 });
  const cached = ["x", "x", "y", undefined, undefined].map((cacheSalt, i) => {
    const transcript = test.add({ ...greedy(`${i}`, tokens(12), 1), cacheSalt });
    test.drain();
    return transcript.end?.usage.cachedTokens;
  });
  assertEquals(cached, [0, 8, 0, 0, 8]);
});

Deno.test("Engine computes the prompt once for all choices of a request", () => {
  const test = new TestEngine({ blocks: 64, maxStepTokens: 16 });
  const transcript = test.add({ ...greedy("a", tokens(33), 3), n: 4 });
  test.drain();
  assertEquals(transcript.ids, new Array(4).fill(testGreedy(tokens(33), 3)));
  assertEquals(test.engine.stats().promptTokens, 33 + 3);
  assertEquals(transcript.end?.usage, { promptTokens: 33, cachedTokens: 0, completionTokens: 12 });
});

Deno.test("Engine reports the log-probabilities of the prompt in chunks that fit the device", () => {
  const prompt = tokens(30);
  const test = new TestEngine({ blocks: 64, maxLogitRows: 8 });
  test.add(greedy("warm the cache", prompt, 1));
  test.drain();
  const other = test.add(greedy("other", tokens(3, 5), 20));
  const transcript = test.add({ ...greedy("a", prompt, 2), sampling: { ...GREEDY, promptLogprobs: 2, logprobs: 1 } });
  test.drain();
  assertEquals(other.ids[0], testGreedy(tokens(3, 5), 20));
  assertEquals(transcript.ids[0], testGreedy(prompt, 2));
  assertEquals(transcript.end?.usage.cachedTokens, 0);
  assertEquals(transcript.prompt?.length, 30);
  assertEquals(transcript.prompt?.[0], null);
  for (let i = 1; i < prompt.length; i++) {
    const logits = testLogits(prompt.slice(0, i));
    const entry = transcript.prompt?.[i];
    assertEquals(entry?.id, prompt[i]);
    assertEquals(entry?.rank, 1 + logits.filter((logit) => logit > logits[prompt[i]]).length);
    assertAlmostEquals(entry?.logprob ?? 0, logits[prompt[i]] - logSum(logits), 1e-5);
    assertEquals(entry?.top.length, 2);
  }
  assertEquals(transcript.logprobs[0].map(({ id, rank }) => [id, rank]), transcript.ids[0].map((id) => [id, 1]));
});

Deno.test("Engine delivers the log-probabilities of the prompt once when preemption interrupts them", () => {
  const test = new TestEngine({ blocks: 12, maxLogitRows: 2, maxBatch: 2 });
  // The newcomer outranks the request that is in the middle of its prompt.
  test.policy.ranker = (queue) => Int32Array.from(queue.id.keys()).sort((a, b) => queue.id[b] - queue.id[a]);
  const request = { ...greedy("a", tokens(30), 3), sampling: { ...GREEDY, promptLogprobs: 0 } };
  const transcript = test.add(request);
  test.step();
  const other = test.add(greedy("b", tokens(3, 5), 25));
  test.drain();
  assertGreater(test.engine.stats().preemptions, 0);
  const alone = undisturbed(request);
  assertEquals([transcript.prompt, transcript.ids], [alone.prompt, alone.ids]);
  assertEquals(other.ids[0], testGreedy(tokens(3, 5), 25));
});

Deno.test("Engine computes only the prompt when no token is to be generated", () => {
  const test = new TestEngine({ blocks: 16 });
  const transcript = test.add({ id: "a", prompt: tokens(9), maxTokens: 0, sampling: { promptLogprobs: 1 } });
  const single = test.add({ id: "b", prompt: [5], maxTokens: 0, sampling: { promptLogprobs: 1 } });
  test.drain();
  assertEquals(transcript.events.map(({ kind }) => kind), ["prompt", "choice-end", "end"]);
  assertEquals(transcript.prompt?.length, 9);
  assertEquals(transcript.choiceEnds[0].reason, "length");
  assertEquals(single.prompt, [null]);
});

Deno.test("Engine.cancel() frees the blocks at once and ends the request once", () => {
  const test = new TestEngine({ blocks: 32 });
  const running = test.add({ ...greedy("running", tokens(9), 20), n: 3 });
  test.step();
  test.step();
  const waiting = test.add(greedy("waiting", tokens(9, 3), 20));
  for (const id of ["running", "waiting", "waiting", "unknown"]) test.engine.cancel(id);
  test.engine.checkIntegrity();
  assertEquals(test.engine.stats().blocks.owned, 0);
  assertEquals(running.choiceEnds.map(({ reason }) => reason), ["cancelled", "cancelled", "cancelled"]);
  assertEquals(waiting.events.map(({ kind }) => kind), ["choice-end", "end"]);
  assertEquals(test.engine.busy, false);
  assertEquals(test.step(), false);
});

Deno.test("Engine lets a listener cancel and add requests during a step", () => {
  const test = new TestEngine({ blocks: 32 });
  const [first, second, third] = [new Transcript(), new Transcript(), new Transcript()];
  test.engine.add(greedy("first", tokens(4), 9), (event) => {
    first.take(event);
    if (event.kind !== "token" || first.ids[0].length !== 2) return;
    test.engine.cancel("first");
    test.engine.cancel("second");
    test.engine.add(greedy("third", tokens(4, 2), 3), (event) => third.take(event));
  });
  test.engine.add(greedy("second", tokens(4, 1), 9), (event) => second.take(event));
  test.drain();
  assertEquals([first, second].map(({ choiceEnds }) => choiceEnds[0].reason), ["cancelled", "cancelled"]);
  assertEquals([first.ids[0].length, second.ids[0].length], [2, 1]);
  assertEquals(third.ids[0], testGreedy(tokens(4, 2), 3));
});

Deno.test("Engine tells nothing after the end to a listener that cancels its own request", () => {
  for (const kind of ["prompt", "token", "choice-end"]) {
    const test = new TestEngine({ blocks: 32 });
    const transcript = new Transcript(2);
    const request = { id: "a", prompt: tokens(4), maxTokens: 2, n: 2, sampling: { ...GREEDY, promptLogprobs: 0 } };
    test.engine.add(request, (event) => {
      transcript.take(event);
      if (event.kind === kind) test.engine.cancel("a");
    });
    test.drain();
    assertEquals(transcript.events.at(-1)?.kind, "end");
  }
});

Deno.test("Engine ends the requests of a step that the device fails, and goes on with the others", () => {
  const test = new TestEngine({ blocks: 32, maxBatch: 2 });
  const failed = [test.add({ ...greedy("a", tokens(9), 9), n: 2 }), test.add(greedy("b", tokens(9, 1), 9))];
  const later = test.add(greedy("c", tokens(9, 2), 9));
  test.step();
  test.device.beforeStep = () => {
    test.device.beforeStep = () => {};
    throw new Error("device is lost");
  };
  test.step();
  for (const { end, choiceEnds } of failed) {
    assertEquals(end?.error, { message: "device is lost", code: "device_error", status: 500 });
    assert(choiceEnds.every(({ reason }) => reason === "error"));
  }
  assertEquals(test.engine.stats().blocks.owned, 0);
  test.drain();
  assertEquals(later.ids[0], testGreedy(tokens(9, 2), 9));
  assertEquals(test.add(greedy("d", tokens(9), 9)).end, undefined);
  test.drain();
});

Deno.test("Engine ends a request alone whose logits are not finite", () => {
  const test = new TestEngine({ blocks: 32 });
  const [spoiled, healthy] = [test.add(greedy("a", tokens(5), 4)), test.add(greedy("b", tokens(5, 1), 4))];
  test.device.spoil = (logits, row) => {
    if (row === 0) logits[3] = NaN;
  };
  test.step();
  test.device.spoil = () => {};
  test.drain();
  assertEquals(spoiled.end?.error?.code, "device_error");
  assertEquals(spoiled.ids, [[]]);
  assertEquals(healthy.ids[0], testGreedy(tokens(5, 1), 4));
});

Deno.test("Engine.add() refuses what can never run, and holds nothing afterwards", async (t) => {
  const test = new TestEngine({ blocks: 10, maxModelLen: 60 });
  const cases: [name: string, request: Partial<EngineRequest>, message: string][] = [
    ["an empty prompt", { prompt: [] }, "wanted at least one prompt token, got none"],
    ["a token outside the vocabulary", { prompt: [1, 97] }, "wanted token ids below 97, got 97 at index 1"],
    ["a token that is no integer", { prompt: [0.5] }, "got 0.5 at index 0"],
    ["a negative length", { maxTokens: -1 }, "wanted maxTokens of 0 or more, got -1"],
    ["no choice", { n: 0 }, "wanted n from 1 to 128, got 0"],
    ["too many choices", { n: 129 }, "wanted n from 1 to 128, got 129"],
    ["a bias outside the vocabulary", { sampling: { logitBias: new Map([[97, 1]]) } }, "97"],
    ["an empty stop string", { sampling: { stop: [""] } }, "stop string"],
  ];
  for (const [name, request, message] of cases) {
    await t.step(name, () => {
      const whole = { ...greedy("a", [1], 1), ...request };
      assertThrows(() => test.engine.add(whole, () => {}), RangeError, message);
    });
  }
  await t.step("more than the model's context", () => {
    const error = assertThrows(() => test.add(greedy("a", tokens(51), 10)), CapacityError, "the longest context is 60");
    assertEquals([error.status, error.code], [400, "context_length_exceeded"]);
  });
  await t.step("more than the pool", () => {
    const error = assertThrows(
      () => test.add(greedy("a", tokens(32), 10)),
      CapacityError,
      "the KV pool holds 40 tokens",
    );
    assertEquals([error.status, error.code], [400, "context_length_exceeded"]);
  });
  await t.step("the id of a live request", () => {
    test.add(greedy("live", [1], 1));
    assertThrows(() => test.add(greedy("live", [1], 1)), RangeError, "a request of that id is live");
    test.drain();
    test.add(greedy("live", [1], 1));
  });
  test.drain();
});

Deno.test("Engine.add() turns requests away when the queue is full", () => {
  const test = new TestEngine({ blocks: 16, maxBatch: 1, maxQueue: 2 });
  for (const id of ["a", "b"]) test.add(greedy(id, [1], 2));
  const error = assertThrows(() => test.add(greedy("c", [1], 2)), CapacityError);
  assertEquals([error.status, error.code, error.retryAfterSeconds], [429, "queue_full", 1]);
  test.step();
  test.add(greedy("c", [1], 2));
  test.drain();
});

Deno.test("Engine.add() turns requests away that the policy rejects", () => {
  const test = new TestEngine({ blocks: 16 });
  test.policy.admission = { kind: "reject", status: 503, reason: "closed for today" };
  const error = assertThrows(() => test.add(greedy("a", [1], 2)), CapacityError, "closed for today");
  assertEquals([error.status, error.code], [503, "rejected_by_policy"]);
  assertEquals(test.engine.busy, false);
});

Deno.test("Engine.stats() adds up", () => {
  const test = new TestEngine({ blocks: 32, maxBatch: 2 });
  test.nowMs = 1000;
  for (const id of ["a", "b", "c"]) test.add(greedy(id, tokens(6, id.charCodeAt(0)), 3));
  test.step();
  const { waiting, running, blocks } = test.engine.stats();
  assertEquals([waiting, running, blocks.owned], [1, 2, 4]);
  test.drain();
  const stats = test.engine.stats();
  assertEquals([stats.waiting, stats.running, stats.promptTokens, stats.generatedTokens], [0, 0, 18, 9]);
  assertEquals([stats.steps, stats.blockTokens, stats.lastTokenMs], [test.device.steps, 4, test.nowMs - 1]);
});

Deno.test("Engine times the stages of a request", () => {
  const test = new TestEngine({ blocks: 32, maxBatch: 1, maxStepTokens: 8 });
  test.add(greedy("before", tokens(4), 5));
  const transcript = test.add(greedy("a", tokens(20, 1), 4));
  test.drain();
  assertEquals(transcript.end?.timing, { queuedMs: 5, prefillMs: 2, decodeMs: 3 });
});

Deno.test("Engine tells the policy what happens", () => {
  const test = new TestEngine({ blocks: 32 });
  test.add(greedy("a", tokens(4), 2));
  test.drain();
  test.add(greedy("b", tokens(4), 2));
  test.engine.cancel("b");
  assertEquals(test.policy.events.map((event) => `${event.id} ${event.kind}`), [
    "1 queued",
    "1 started",
    "1 first-token",
    "1 ended",
    "2 queued",
    "2 ended",
  ]);
});

Deno.test("Two engines in one process do not know each other", () => {
  const [one, two] = [new TestEngine({ blocks: 12 }), new TestEngine({ blocks: 12, blockTokens: 8 })];
  const requests = [0, 1, 2].map((i) => greedy(`${i}`, tokens(9, i), 12));
  const transcripts = [one, two].map((test) => requests.map((request) => test.add(request)));
  while (one.engine.busy || two.engine.busy) {
    one.step();
    two.step();
  }
  const expected = requests.map(({ prompt }) => testGreedy(prompt, 12));
  for (const each of transcripts) assertEquals(each.map(({ ids }) => ids[0]), expected);
});

function logSum(logits: Float32Array): number {
  return Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
}
