import { assert, assertEquals, assertGreater, assertLess, assertRejects } from "@std/assert";
import type { EngineText } from "./engine_protocol.ts";
import type { EngineHandle, EngineRequest, RequestEvent } from "./request.ts";
import { CapacityError } from "./request.ts";
import { testGreedy, testVocabulary } from "./test_device.ts";
import { Transcript } from "./test_engine.ts";
import { connectEngine, type OpenEngineContext } from "./worker_engine.ts";

const TEXT = { vocabulary: testVocabulary(), eos: [] };

function open(modelName = "test", context: Partial<OpenEngineContext> = {}, maxQueue?: number): Promise<EngineHandle> {
  const worker = new Worker(new URL("./test_engine_worker.ts", import.meta.url), { type: "module" });
  return connectEngine(worker, { text: TEXT, options: { modelPath: "none", modelName, maxQueue }, ...context });
}

function request(id: string, prompt: number[], maxTokens: number): EngineRequest {
  return { id, prompt, maxTokens, sampling: { temperature: 0 } };
}

async function read(events: AsyncIterable<RequestEvent>, transcript = new Transcript()): Promise<Transcript> {
  for await (const event of events) transcript.take(event);
  return transcript;
}

Deno.test("openEngine() runs many requests in a Worker, and its counters agree with the events", async () => {
  await using engine = await open();
  const requests = Array.from({ length: 24 }, (_, i) => request(`${i}`, [i, 2 * i, 3], 5 + i));
  const transcripts = await Promise.all(requests.map((one) => read(engine.generate(one))));
  assertEquals(
    transcripts.map(({ ids }) => ids[0]),
    requests.map(({ prompt, maxTokens }) => testGreedy(prompt, maxTokens)),
  );
  const { generatedTokens, blocks, running } = await engine.stats();
  assertEquals(generatedTokens, requests.reduce((sum, { maxTokens }) => sum + maxTokens, 0));
  assertEquals([blocks.owned, running], [0, 0]);
  assertEquals([engine.info.vocab, engine.info.scheduler], [97, "test"]);
});

Deno.test("openEngine() takes requests, cancellations and questions in while the Worker is busy", async () => {
  await using engine = await open("slow");
  const long = engine.generate(request("long", [1], 190))[Symbol.asyncIterator]();
  await long.next();
  const short = await read(engine.generate(request("short", [2], 3)));
  assertEquals(short.ids[0], testGreedy([2], 3));
  const before = await engine.stats();
  assertEquals(before.running, 1);
  await long.return?.();
  const after = await engine.stats();
  assertEquals([after.running, after.blocks.owned], [0, 0]);
  assertLess(after.generatedTokens, 190);
});

Deno.test("openEngine() streams tokens out of a busy Worker", async () => {
  await using engine = await open("slow");
  let events = 0;
  for await (const event of engine.generate(request("a", [1], 60))) if (event.kind === "token") events++;
  assertGreater(events, 10, "all tokens came at once");
});

Deno.test("openEngine() cancels by signal and tells the end", async () => {
  await using engine = await open("slow");
  const controller = new AbortController();
  const transcript = new Transcript();
  for await (const event of engine.generate(request("a", [1], 190), { signal: controller.signal })) {
    transcript.take(event);
    controller.abort();
  }
  assertEquals(transcript.choiceEnds[0].reason, "cancelled");
  assert(transcript.end !== undefined && transcript.end.error === undefined);
});

Deno.test("openEngine() hands refusals over with their class and fields", async () => {
  await using engine = await open("slow", {}, 0);
  const tooLong = await assertRejects(() => read(engine.generate(request("a", [1], 500))), CapacityError);
  assertEquals([tooLong.status, tooLong.code], [400, "context_length_exceeded"]);
  const full = await assertRejects(() => read(engine.generate(request("b", [1], 5))), CapacityError);
  assertEquals([full.status, full.code, full.retryAfterSeconds], [429, "queue_full", 1]);
  await assertRejects(() => read(engine.generate(request("c", [], 5))), RangeError);
});

Deno.test("openEngine() opens the Worker's parts before the text is there, and waits for it", async () => {
  const log: string[] = [];
  const text = Promise.withResolvers<EngineText>();
  const opening = open("test", { text: text.promise, log: (line) => log.push(line) });
  text.resolve(TEXT);
  const engine = await opening;
  assertEquals((await read(engine.generate(request("a", [1], 4)))).texts[0].length, 4);
  await engine[Symbol.asyncDispose]();
  assertEquals(log, ["assembled", "disposed"]);
});

Deno.test("openEngine() throws what cannot be opened", async () => {
  await assertRejects(() => open("unreadable"), RangeError, "it is unreadable");
  await assertRejects(() => open("test", { text: Promise.reject(new Error("no tokenizer")) }), Error, "no tokenizer");
});

Deno.test("openEngine() ends every request with an error when its engine breaks in a step", async () => {
  await using engine = await open("fragile");
  const long = read(engine.generate(request("long", [1], 190)));
  const fatal = read(engine.generate(request("fatal", new Array(13).fill(2), 5)));
  for (const { end } of await Promise.all([long, fatal])) {
    assertEquals([end?.error?.code, end?.error?.status], ["engine_failed", 500]);
  }
  await assertRejects(() => engine.stats(), Error, "Test engine breaks in a step");
  await assertRejects(() => read(engine.generate(request("c", [1], 5))), Error, "its worker failed");
});

Deno.test("openEngine() ends every request with an error when its device is lost, and says so", async () => {
  await using engine = await open("lost");
  const two = ["a", "b"].map((id) => read(engine.generate(request(id, [1], 190))));
  for (const { end } of await Promise.all(two)) assertEquals(end?.error?.code, "engine_failed");
  const lost = await engine.deviceLost;
  assertEquals(lost?.name, "DeviceLostError");
  assertEquals(lost?.message, "Cannot use the device any more: a kernel of the test went astray");
  await assertRejects(() => read(engine.generate(request("c", [1], 5))), Error, "its worker failed");
});

for (const [model, who] of [["absent", "a timer"], ["adrift", "a promise"]] as const) {
  Deno.test(`openEngine() says that its device is lost also where no step finds out, but ${who}`, async () => {
    await using engine = await open(model);
    const two = ["a", "b"].map((id) => read(engine.generate(request(id, [1], 190))));
    // A busy Worker looks at timers and links when it takes a command in.
    await assertRejects(async () => {
      for (;;) await engine.stats();
    }, Error);
    for (const { end } of await Promise.all(two)) assertEquals(end?.error?.code, "engine_failed");
    assertEquals((await engine.deviceLost)?.message, "Cannot use the device any more: it was lost between two steps");
  });
}

Deno.test("openEngine() ends every request with an error when its engine breaks between steps", async () => {
  await using engine = await open("fragile");
  const long = read(engine.generate(request("long", [1], 190)));
  await engine.generate(request("cancelled", [1], 190))[Symbol.asyncIterator]().return?.();
  assertEquals((await long).end?.error?.code, "engine_failed");
  await assertRejects(() => engine.stats(), Error, "Test engine breaks between steps");
});

Deno.test("openEngine() ends every request with an error when its Worker dies", async () => {
  await using engine = await open("mortal");
  const two = ["a", "b"].map((id) => read(engine.generate(request(id, [1], 190))));
  // A busy Worker notices its death when it takes a command in.
  await assertRejects(
    async () => {
      for (;;) await engine.stats();
    },
    Error,
    "Test worker dies",
  );
  for (const { end } of await Promise.all(two)) assertEquals(end?.error?.code, "engine_failed");
});

Deno.test({
  name: "openEngine() throws when its Worker cannot start",
  // The port on its way to a Worker that never takes it belongs to nobody who could close it.
  sanitizeResources: false,
  async fn() {
    const worker = new Worker(new URL("./no_such_worker.ts", import.meta.url), { type: "module" });
    const opening = connectEngine(worker, { text: TEXT, options: { modelPath: "none" } });
    await assertRejects(() => opening, Error, "Cannot open the engine: its worker failed");
  },
});

Deno.test("openEngine() rejects pending questions when it is disposed, and ends live requests", async () => {
  const engine = await open("slow");
  const reading = read(engine.generate(request("a", [1], 190)));
  await engine[Symbol.asyncDispose]();
  assertEquals((await reading).choiceEnds[0].reason, "cancelled");
  await assertRejects(() => engine.stats(), ReferenceError, "it is disposed");
  await engine[Symbol.asyncDispose]();
});

Deno.test("Two engine Workers do not know each other", async () => {
  await using one = await open();
  await using two = await open();
  const same = request("same", [5, 6], 20);
  const transcripts = await Promise.all([one, two].map((engine) => read(engine.generate(same))));
  assertEquals(transcripts.map(({ ids }) => ids[0]), [testGreedy([5, 6], 20), testGreedy([5, 6], 20)]);
  assertEquals((await one.stats()).generatedTokens, 20);
});
