import { assertEquals, assertRejects } from "@std/assert";
import { LocalEngine } from "./local_engine.ts";
import { CapacityError, type RequestEvent } from "./request.ts";
import { testGreedy } from "./test_device.ts";
import { TestEngine, Transcript } from "./test_engine.ts";

const GREEDY = { temperature: 0 };

async function read(events: AsyncIterable<RequestEvent>): Promise<Transcript> {
  const transcript = new Transcript();
  for await (const event of events) transcript.take(event);
  return transcript;
}

Deno.test("LocalEngine.generate() runs requests together", async () => {
  const test = new TestEngine({ blocks: 64 });
  await using local = new LocalEngine(test.engine);
  const prompts = [[1], [2, 3], [4, 5, 6]];
  const transcripts = await Promise.all(
    prompts.map((prompt, i) => read(local.generate({ id: `${i}`, prompt, maxTokens: 9, sampling: GREEDY }))),
  );
  assertEquals(transcripts.map(({ ids }) => ids[0]), prompts.map((prompt) => testGreedy(prompt, 9)));
  assertEquals((await local.stats()).steps, 9);
  assertEquals(local.info, test.engine.info);
});

Deno.test("LocalEngine.generate() cancels a request whose iteration is given up", async () => {
  const test = new TestEngine({ blocks: 64 });
  await using local = new LocalEngine(test.engine);
  for await (const event of local.generate({ id: "a", prompt: [1], maxTokens: 150, sampling: GREEDY })) {
    if (event.kind === "token") break;
  }
  const { blocks, running, waiting } = await local.stats();
  assertEquals([blocks.owned, running, waiting], [0, 0, 0]);
});

Deno.test("LocalEngine.generate() throws what the engine refuses", async () => {
  const test = new TestEngine({ blocks: 4 });
  await using local = new LocalEngine(test.engine);
  await assertRejects(() => read(local.generate({ id: "a", prompt: [1], maxTokens: 500 })), CapacityError);
  await assertRejects(() => read(local.generate({ id: "a", prompt: [], maxTokens: 5 })), RangeError);
  assertEquals((await read(local.generate({ id: "a", prompt: [1], maxTokens: 5 }))).ids[0].length, 5);
});

Deno.test("LocalEngine ends every request when the engine breaks", async () => {
  const test = new TestEngine({ blocks: 64 });
  await using local = new LocalEngine(test.engine);
  test.policy.ranker = () => {
    throw new Error("rank is broken");
  };
  const transcripts = await Promise.all(
    ["a", "b"].map((id) => read(local.generate({ id, prompt: [1], maxTokens: 5 }))),
  );
  assertEquals(transcripts.map(({ end }) => end?.error?.code), ["engine_failed", "engine_failed"]);
  await assertRejects(() => local.stats(), Error, "rank is broken");
  await assertRejects(() => read(local.generate({ id: "c", prompt: [1], maxTokens: 5 })), Error, "rank is broken");
});

Deno.test("LocalEngine ends live requests when it is disposed", async () => {
  const test = new TestEngine({ blocks: 64 });
  const local = new LocalEngine(test.engine);
  const reading = read(local.generate({ id: "a", prompt: [1], maxTokens: 150 }));
  await local[Symbol.asyncDispose]();
  assertEquals((await reading).choiceEnds[0].reason, "cancelled");
  await local[Symbol.asyncDispose]();
  await assertRejects(() => read(local.generate({ id: "b", prompt: [1], maxTokens: 5 })), ReferenceError);
});
