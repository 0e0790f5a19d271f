import { assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import OpenAI from "openai";
import { digestKey } from "./api_keys.ts";
import { CapacityError } from "../engine/request.ts";
import { end, FakeEngine, token } from "./fakes/engine.ts";
import { type Harness, serve, until } from "./fakes/server.ts";

function client(harness: Harness, apiKey = "none"): OpenAI {
  return new OpenAI({ baseURL: `${harness.server.url}/v1`, apiKey, maxRetries: 0 });
}

const MESSAGES = [{ role: "user" as const, content: "hi" }];

Deno.test("the official client creates a chat completion", async () => {
  await using harness = await serve();
  const answer = await client(harness).chat.completions.create({ model: "fake", messages: MESSAGES, max_tokens: 3 });
  assertEquals([answer.choices[0].message.content, answer.choices[0].finish_reason], ["Hel", "length"]);
  assertEquals(answer.usage?.completion_tokens, 3);
});

Deno.test("the official client streams a chat completion", async () => {
  await using harness = await serve();
  const stream = await client(harness).chat.completions.create({
    model: "fake",
    messages: MESSAGES,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let total: number | undefined;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    total = chunk.usage?.total_tokens ?? total;
  }
  assertEquals([text, total], ["Hello", 26]);
});

Deno.test("the official client's stream helper assembles a message", async () => {
  await using harness = await serve();
  const runner = client(harness).chat.completions.stream({ model: "fake", messages: MESSAGES });
  assertEquals((await runner.finalChatCompletion()).choices[0].message.content, "Hello");
});

Deno.test("the official client cancels a stream", async () => {
  const engine = new FakeEngine({ reply: "x".repeat(150), delayMs: 5 });
  await using harness = await serve({ engine });
  const stream = await client(harness).chat.completions.create({ model: "fake", messages: MESSAGES, stream: true });
  for await (const chunk of stream) {
    if (chunk.choices[0].delta.content === "x") break;
  }
  await until(() => engine.live.size === 0);
});

Deno.test("the official client creates completions and lists models", async () => {
  await using harness = await serve();
  const openai = client(harness);
  const answer = await openai.completions.create({ model: "fake", prompt: "hi", logprobs: 1 });
  assertEquals([answer.choices[0].text, answer.choices[0].logprobs?.tokens?.length], ["Hello", 5]);
  assertEquals((await openai.models.list()).data.map((model) => model.id), ["fake"]);
  assertEquals((await openai.models.retrieve("fake")).id, "fake");
});

Deno.test("the official client maps errors to its classes", async () => {
  const engine = new FakeEngine({
    async *behave(request) {
      if (request.prompt.length > 25) {
        throw new CapacityError("Cannot queue the request: full", { status: 429, code: "queue_full" });
      }
      yield token(0, [72]);
      yield { ...end(), error: { message: "The device was lost", code: "device_lost", status: 500 } };
    },
  });
  await using harness = await serve({ engine, apiKeys: [digestKey("right")] });
  const ask = (key: string, fields: object) =>
    client(harness, key).chat.completions.create({ model: "fake", messages: MESSAGES, ...fields });
  const wrongKey = await assertRejects(() => ask("wrong", {}), OpenAI.AuthenticationError);
  assertEquals([wrongKey.status, wrongKey.code], [401, "invalid_api_key"]);
  const badField = await assertRejects(() => ask("right", { temperature: 9 }), OpenAI.BadRequestError);
  assertEquals(badField.param, "temperature");
  await assertRejects(() => ask("right", { model: "x" }), OpenAI.NotFoundError);
  await assertRejects(
    () => ask("right", { messages: [{ role: "user", content: "a long message" }] }),
    OpenAI.RateLimitError,
  );
  await assertRejects(() => ask("right", {}), OpenAI.InternalServerError);
  const stream = await client(harness, "right").chat.completions.create({
    model: "fake",
    messages: MESSAGES,
    stream: true,
  });
  const broken = await assertRejects(async () => {
    for await (const _ of stream);
  });
  assertInstanceOf(broken, OpenAI.APIError);
  assertEquals(broken.code, "device_lost");
});
