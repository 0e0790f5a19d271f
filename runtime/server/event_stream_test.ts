import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { CapacityError, type RequestEvent } from "../engine/request.ts";
import { EventFeed } from "./event_feed.ts";
import { eventStream } from "./event_stream.ts";
import { end, FakeEngine, pause, token } from "./fakes/engine.ts";
import { FakeText } from "./fakes/text.ts";
import { events, type Harness, serve, until } from "./fakes/server.ts";

const CHAT = { messages: [{ role: "user", content: "hi" }], stream: true };

interface Chunk {
  readonly object: string;
  readonly choices: readonly {
    readonly index: number;
    readonly delta: { readonly role?: string; readonly content?: string };
    readonly finish_reason: string | null;
    readonly stop_reason?: string | number | null;
  }[];
  readonly usage?: { readonly completion_tokens: number };
  readonly error?: { readonly message: string; readonly code: string; readonly type: string };
}

async function chunksOf(harness: Harness, fields: object = {}): Promise<(Chunk | string)[]> {
  const response = await harness.post("/v1/chat/completions", { ...CHAT, ...fields });
  assertEquals([response.status, response.headers.get("content-type")], [200, "text/event-stream"]);
  return events(await response.text()) as (Chunk | string)[];
}

function objects(chunks: readonly (Chunk | string)[]): Chunk[] {
  return chunks.filter((chunk) => typeof chunk !== "string");
}

Deno.test("eventStream() sends the role, text, finish reason and [DONE] in this order", async () => {
  await using harness = await serve();
  const chunks = await chunksOf(harness);
  assertEquals(chunks.pop(), "[DONE]");
  const sent = objects(chunks);
  assert(sent.every((chunk) => chunk.object === "chat.completion.chunk" && chunk.usage === undefined));
  assertEquals(sent.map(({ choices: [choice] }) => [choice.delta, choice.finish_reason]), [
    [{ role: "assistant", content: "" }, null],
    ...Array.from("Hello", (content) => [{ content }, null]),
    [{}, "stop"],
  ]);
});

Deno.test("eventStream() writes one line of data and one empty line a chunk", async () => {
  await using harness = await serve({ engine: new FakeEngine({ reply: "a\nb\r\nc\u2028" }) });
  const response = await harness.post("/v1/chat/completions", CHAT);
  const text = await response.text();
  assert(/^(data: [^\n\r]+\n\n)+$/.test(text));
  assert(text.endsWith("data: [DONE]\n\n"));
});

Deno.test("eventStream() sends usage last and only when asked to", async () => {
  await using harness = await serve();
  const withUsage = objects(await chunksOf(harness, { stream_options: { include_usage: true } }));
  assertEquals(withUsage.filter((chunk) => chunk.usage !== undefined).length, 1);
  assertEquals([withUsage.at(-1)?.choices, withUsage.at(-1)?.usage?.completion_tokens], [[], 5]);
  for (const options of [undefined, {}, { include_usage: false }, { include_usage: null }]) {
    const without = objects(await chunksOf(harness, { stream_options: options }));
    assert(without.every((chunk) => chunk.usage === undefined && chunk.choices.length === 1));
  }
});

Deno.test("eventStream() sends usage so far on every chunk when asked to", async () => {
  await using harness = await serve();
  const sent = objects(await chunksOf(harness, { stream_options: { continuous_usage_stats: true } }));
  assertEquals(sent.map((chunk) => chunk.usage?.completion_tokens), [0, 1, 2, 3, 4, 5, 5]);
});

Deno.test("eventStream() streams several choices side by side", async () => {
  await using harness = await serve();
  const sent = objects(await chunksOf(harness, { n: 3, max_tokens: 2 }));
  for (let index = 0; index < 3; index++) {
    const own = sent.map(({ choices: [choice] }) => choice).filter((choice) => choice.index === index);
    assertEquals(own.map((choice) => choice.delta.content ?? "").join(""), "He");
    assertEquals([own[0].delta.role, own.at(-1)?.finish_reason], ["assistant", "length"]);
  }
});

Deno.test("eventStream() joins the tokens of one event into one chunk and names the stop", async () => {
  const engine = new FakeEngine({
    async *behave() {
      yield token(0, [72, 105]);
      yield { kind: "choice-end", index: 0, reason: "stop", text: "!", stop: "END" };
      yield end();
    },
  });
  await using harness = await serve({ engine });
  const sent = objects(await chunksOf(harness)).map(({ choices: [choice] }) => choice);
  assertEquals(sent.map((choice) => choice.delta.content), ["", "Hi", "!", undefined]);
  assertEquals(sent.at(-1)?.stop_reason, "END");
});

Deno.test("eventStream() sends what fails in mid-stream as an event, then [DONE]", async () => {
  const engine = new FakeEngine({
    async *behave() {
      yield token(0, [72]);
      yield { kind: "choice-end", index: 0, reason: "error", text: "" };
      yield { ...end(), error: { message: "The device was lost", code: "device_lost", status: 500 } };
    },
  });
  await using harness = await serve({ engine });
  const chunks = await chunksOf(harness);
  assertEquals(chunks.pop(), "[DONE]");
  const last = objects(chunks).at(-1)?.error;
  assertEquals([last?.message, last?.code, last?.type], ["The device was lost", "device_lost", "server_error"]);
  assert(objects(chunks).every((chunk) => chunk.choices?.[0].finish_reason !== "error"));
});

Deno.test("eventStream() hides what an unexpected error says", async () => {
  const engine = new FakeEngine({
    async *behave() {
      yield token(0, [72]);
      throw new TypeError("secret details");
    },
  });
  await using harness = await serve({ engine });
  const chunks = await chunksOf(harness);
  assertEquals(objects(chunks).at(-1)?.error?.code, "internal_error");
  assert(!JSON.stringify(chunks).includes("secret details"));
  assert(harness.log.text.includes("TypeError") && !harness.log.text.includes("secret details"));
});

Deno.test("eventStream() reports an engine that ends without an end", async () => {
  await using harness = await serve({ engine: new FakeEngine({ behave: async function* () {} }) });
  const response = await harness.post("/v1/completions", { prompt: "a" });
  assertEquals([response.status, (await response.json()).error.code], [500, "internal_error"]);
});

Deno.test("generation routes answer a refusal before the first token with its own status, streamed or not", async () => {
  const refusals: (() => AsyncIterable<RequestEvent>)[] = [
    () => {
      throw new CapacityError("Cannot queue the request: full", {
        status: 429,
        code: "queue_full",
        retryAfterSeconds: 3,
      });
    },
    // deno-lint-ignore require-yield
    async function* () {
      throw new CapacityError("Cannot queue the request: full", {
        status: 429,
        code: "queue_full",
        retryAfterSeconds: 2.1,
      });
    },
    async function* () {
      yield { ...end(), error: { message: "Cannot queue the request: full", code: "queue_full", status: 429 } };
    },
  ];
  for (const behave of refusals) {
    await using harness = await serve({ engine: new FakeEngine({ behave }) });
    for (const stream of [true, false]) {
      const response = await harness.post("/v1/chat/completions", { ...CHAT, stream });
      assertEquals([response.status, (await response.json()).error.code], [429, "queue_full"]);
      assertGreater(Number(response.headers.get("retry-after")), 0);
    }
  }
});

Deno.test("eventStream() sends comments while nothing happens", async () => {
  const engine = new FakeEngine({
    async *behave(_request, signal) {
      await pause(120, signal);
      yield token(0, [72]);
      yield { kind: "choice-end", index: 0, reason: "stop", text: "" };
      yield end();
    },
  });
  await using harness = await serve({ engine, limits: { pingMs: 25, firstEventMs: 5 } });
  const chunks = await chunksOf(harness);
  assertGreater(chunks.filter((chunk) => chunk === ": ping").length, 1);
  assertEquals(objects(chunks).map((chunk) => chunk.choices[0].delta.content), ["", "H", undefined]);
});

Deno.test("eventStream() ends its feed when the body is cancelled before anything was read", async () => {
  let ended = false;
  const source = {
    next: () => new Promise<never>(() => {}),
    return: () => {
      ended = true;
      return Promise.resolve({ done: true as const, value: undefined });
    },
  };
  const response = eventStream(
    new EventFeed([source]),
    { open: () => [], write: () => [], usage: () => ({}) },
    { includeUsage: false, pingMs: 1000, onFailure: () => {}, onUsage: () => {} },
  );
  await response.body?.cancel();
  await until(() => ended);
});

/** Yields tokens for ever. */
async function* endless(_request: unknown, signal: AbortSignal): AsyncGenerator<RequestEvent> {
  for (;;) {
    await pause(1, signal);
    yield token(0, Array.from({ length: 20_000 }, () => 65));
  }
}

Deno.test("generation routes cancel the engine's request when the client leaves, streamed or not", async () => {
  const engine = new FakeEngine({ behave: endless });
  await using harness = await serve({ engine });
  for (const stream of [true, false]) {
    const controller = new AbortController();
    const asked = harness.fetch("/v1/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...CHAT, stream }),
      signal: controller.signal,
    });
    if (stream) {
      const reader = (await asked).body?.getReader();
      await reader?.read();
    }
    await until(() => engine.live.size === 1);
    controller.abort();
    await asked.catch(() => {});
    await until(() => engine.live.size === 0);
  }
  await until(() => (harness.log.text.match(/"status":499/g) ?? []).length === 2);
});

Deno.test("generation routes do not start a request whose client left while its prompt was tokenized", async () => {
  const text = new FakeText();
  const { promise, resolve } = Promise.withResolvers<void>();
  const encodeChat = text.encodeChat.bind(text);
  text.encodeChat = async (...parts) => {
    await promise;
    return await encodeChat(...parts);
  };
  const engine = new FakeEngine();
  await using harness = await serve({ engine, text });
  const controller = new AbortController();
  const asked = harness.fetch("/v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(CHAT),
    signal: controller.signal,
  });
  await new Promise((done) => setTimeout(done, 30));
  controller.abort();
  await asked.catch(() => {});
  await until(() => harness.log.text.includes('"status":499'));
  resolve();
  await new Promise((done) => setTimeout(done, 10));
  assertEquals(engine.requests.length, 0);
});

Deno.test("writeResponse() stops pulling events for a reader that does not read, then ends it, others unaffected", async () => {
  const engine = new FakeEngine({
    behave: (request, signal) => request.maxTokens === 199 - 1 ? endless(request, signal) : short(),
  });
  await using harness = await serve({ engine, limits: { slowReaderMs: 800, outputBufferBytes: 64 * 1024 } });
  using connection = await Deno.connect({ hostname: "127.0.0.1", port: harness.server.port });
  const body = JSON.stringify({ prompt: "a", max_tokens: 198, stream: true });
  await connection.write(new TextEncoder().encode(
    `POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n` +
      `Content-Length: ${body.length}\r\n\r\n${body}`,
  ));
  await until(() => engine.live.size === 1);
  // The events stop when the buffers of both sides are full.
  let before = -1;
  while (engine.pulled !== before) {
    before = engine.pulled;
    await new Promise((resolve) => setTimeout(resolve, 60));
  }
  assertEquals(engine.live.size, 1);
  assertLess(engine.pulled * 20_000, 64 * 1024 * 1024);
  const other = await harness.post("/v1/completions", { prompt: "b" });
  assertEquals((await other.json()).choices[0].text, "H");
  await until(() => engine.live.size === 0);
  await until(() => harness.log.text.includes('"slow_reader":true'));
});

async function* short(): AsyncGenerator<RequestEvent> {
  yield token(0, [72]);
  yield { kind: "choice-end", index: 0, reason: "stop", text: "" };
  yield end();
}

Deno.test("writeResponse() ends an answer that nobody takes although it was written", async () => {
  const engine = new FakeEngine({
    async *behave() {
      yield { kind: "token", index: 0, ids: [65], text: "x".repeat(16 * 1024 * 1024) };
      yield { kind: "choice-end", index: 0, reason: "stop", text: "" };
      yield end();
    },
  });
  await using harness = await serve({ engine, limits: { slowReaderMs: 300, outputBufferBytes: 1024 * 1024 * 1024 } });
  using connection = await Deno.connect({ hostname: "127.0.0.1", port: harness.server.port });
  const body = JSON.stringify({ prompt: "a" });
  await connection.write(new TextEncoder().encode(
    `POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n` +
      `Content-Length: ${body.length}\r\n\r\n${body}`,
  ));
  await until(() => harness.log.text.includes('"slow_reader":true'));
});

Deno.test("writeResponse() delivers a long stream completely to a slow reader", async () => {
  const reply = "x".repeat(3000);
  await using harness = await serve({
    engine: new FakeEngine({ reply, info: { maxModelLen: 4000 } }),
    limits: { outputBufferBytes: 20_000 },
  });
  const response = await harness.post("/v1/completions", { prompt: "a", max_tokens: 3000, stream: true });
  await new Promise((resolve) => setTimeout(resolve, 100));
  let text = "";
  for await (const piece of response.body?.pipeThrough(new TextDecoderStream()) ?? []) text += piece;
  const sent = events(text) as { choices?: { text: string }[] }[];
  assertEquals(sent.map((chunk) => chunk.choices?.[0].text ?? "").join(""), reply);
});
