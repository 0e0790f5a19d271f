import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import { digestKey } from "./api_keys.ts";
import { end, FakeEngine, pause, token } from "./fakes/engine.ts";
import { events, KeptLog, serve, until } from "./fakes/server.ts";
import { FakeText } from "./fakes/text.ts";

const CHAT = { messages: [{ role: "user", content: "hi" }] };
const PATH = "/v1/chat/completions";

Deno.test("startServer() refuses an address that other machines reach without a key or an explicit word", async () => {
  for (const hostname of ["0.0.0.0", "::", "192.0.2.1"]) {
    const error = await assertRejects(() => serve({ hostname }), Error);
    assertEquals(
      error.message,
      `Cannot listen on ${hostname}: wanted API keys, because other machines reach this address, got none`,
    );
  }
  {
    await using harness = await serve({ hostname: "0.0.0.0", allowInsecureBind: true });
    assertStringIncludes(harness.log.text, "other machines can use this server without a key");
    const response = await fetch(`http://127.0.0.1:${harness.server.port}/v1/models`);
    assertEquals(response.status, 200);
    await response.body?.cancel();
  }
  await using harness = await serve({ hostname: "0.0.0.0", apiKeys: [digestKey("k")] });
  const alive = await fetch(`http://127.0.0.1:${harness.server.port}/health`);
  assertEquals(await alive.json(), { status: "ok" });
});

Deno.test("startServer() serves IPv6 loopback under its bracketed name", async () => {
  await using harness = await serve({ hostname: "::1" });
  assertMatch(harness.server.url, /^http:\/\/\[::1\]:\d+$/);
  const response = await harness.fetch("/v1/models");
  assertEquals(response.status, 200);
  await response.body?.cancel();
});

Deno.test("startServer() says which address is taken", async () => {
  await using harness = await serve();
  const { port } = harness.server;
  const error = await assertRejects(() => serve({ port }), Error);
  assertMatch(error.message, new RegExp(`^Cannot listen on 127\\.0\\.0\\.1:${port}: EADDRINUSE`));
});

Deno.test("startServer() serves HTTPS", async () => {
  const read = (name: string) => Deno.readTextFileSync(new URL(`./testdata/loopback_${name}.pem`, import.meta.url));
  await using harness = await serve({ tls: { cert: read("cert"), key: read("key") } });
  using client = Deno.createHttpClient({ caCerts: [read("cert")] });
  assertMatch(harness.server.url, /^https:/);
  const url = `https://localhost:${harness.server.port}${PATH}`;
  const response = await fetch(url, {
    client,
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...CHAT, stream: true }),
  });
  assertEquals(events(await response.text()).at(-1), "[DONE]");
});

Deno.test("two servers in one process share nothing", async () => {
  await using one = await serve({ engine: new FakeEngine({ reply: "one" }), servedModelNames: ["one"] });
  await using two = await serve({ engine: new FakeEngine({ reply: "two" }), servedModelNames: ["two"] });
  const answers = await Promise.all([one, two].map(async (harness) => (await harness.post(PATH, CHAT)).json()));
  assertEquals(answers.map((answer) => [answer.model, answer.choices[0].message.content]), [
    ["one", "one"],
    ["two", "two"],
  ]);
  const metrics = await (await one.fetch("/metrics")).text();
  assertStringIncludes(metrics, 'request_generation_tokens_sum{model_name="one"} 3');
  assert(!metrics.includes('"two"'));
});

Deno.test("RunningServer.drain() lets running requests finish and accepts no more", async () => {
  const engine = new FakeEngine({ delayMs: 20 });
  await using harness = await serve({ engine });
  const running = [harness.post(PATH, CHAT), harness.post(PATH, { ...CHAT, stream: true })];
  await until(() => engine.live.size === 2);
  const drained = harness.server.drain(5000);
  await assertRejects(() => harness.raw("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  const [whole, stream] = await Promise.all(running);
  assertEquals((await whole.json()).choices[0].message.content, "Hello");
  assertEquals(events(await stream.text()).at(-1), "[DONE]");
  assertEquals(await drained, 0);
});

Deno.test("RunningServer.drain() refuses new work on open connections and is no longer ready", async () => {
  await using harness = await serve({ engine: new FakeEngine({ delayMs: 20 }) });
  using connection = await Deno.connect({ hostname: "127.0.0.1", port: harness.server.port });
  const send = (text: string) => connection.write(new TextEncoder().encode(text));
  const body = JSON.stringify({ ...CHAT, stream: true });
  await send(
    `POST ${PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n` +
      `Content-Length: ${body.length}\r\n\r\n${body}`,
  );
  let raw = "";
  const buffer = new Uint8Array(65536);
  // Once the answer has begun it no longer says that the connection will close.
  raw += new TextDecoder().decode(buffer.subarray(0, await connection.read(buffer) ?? 0));
  const drained = harness.server.drain(5000);
  await send("GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n");
  for (let got = await connection.read(buffer); got !== null; got = await connection.read(buffer)) {
    raw += new TextDecoder().decode(buffer.subarray(0, got));
  }
  assertMatch(raw, /data: \[DONE\][^]*503 Service Unavailable[^]*"code":"shutting_down"/);
  assertEquals(await drained, 0);
});

Deno.test("RunningServer.drain() ends what is still running after its time and says how much", async () => {
  const engine = new FakeEngine({ reply: "x".repeat(100), delayMs: 50 });
  await using harness = await serve({ engine });
  const whole = harness.post(PATH, CHAT);
  const stream = await harness.post(PATH, { ...CHAT, stream: true });
  await until(() => engine.live.size === 2);
  assertEquals(await harness.server.drain(60), 2);
  const refused = await whole;
  assertEquals([refused.status, (await refused.json()).error.code], [503, "shutting_down"]);
  const chunks = events(await stream.text()) as { error?: { code: string } }[];
  assertEquals([chunks.at(-2)?.error?.code, chunks.at(-1) as unknown], ["shutting_down", "[DONE]"]);
  assertEquals(engine.live.size, 0);
});

Deno.test("RunningServer.drain() tells clients why, also when the engine ends their requests as cancelled", async () => {
  const engine = new FakeEngine({
    async *behave(_request, signal) {
      await pause(60_000, signal).catch(() => {});
      yield { kind: "choice-end", index: 0, reason: "cancelled", text: "" };
      yield end();
    },
  });
  await using harness = await serve({ engine });
  const asked = harness.post(PATH, CHAT);
  await until(() => engine.live.size === 1);
  assertEquals(await harness.server.drain(1), 1);
  assertEquals((await (await asked).json()).error.code, "shutting_down");
});

Deno.test("RunningServer.close() cuts a drain short", async () => {
  const engine = new FakeEngine({ delayMs: 10_000 });
  await using harness = await serve({ engine });
  const asked = harness.post(PATH, CHAT);
  await until(() => engine.live.size === 1);
  const drained = harness.server.drain(60_000);
  await harness.server.close();
  assertEquals(await drained, 1);
  assertEquals((await (await asked).json()).error.code, "shutting_down");
});

Deno.test("RunningServer.close() can be called twice, also while clients idle or never read", async () => {
  const harness = await serve();
  await (await harness.fetch("/v1/models")).body?.cancel();
  using silent = await Deno.connect({ hostname: "127.0.0.1", port: harness.server.port });
  await harness.server.close();
  await harness.server.close();
  assertEquals(await silent.read(new Uint8Array(1)).catch(() => null), null);
});

Deno.test("startServer() survives a promise that nobody waits for", async () => {
  const engine = new FakeEngine({
    async *behave() {
      Promise.reject(new TypeError("nobody waits"));
      await new Promise((resolve) => setTimeout(resolve, 5));
      yield token(0, [72]);
      yield { kind: "choice-end", index: 0, reason: "stop", text: "" };
      yield end();
    },
  });
  await using harness = await serve({ engine });
  assertEquals((await (await harness.post(PATH, CHAT)).json()).choices[0].message.content, "H");
  assertStringIncludes(harness.log.text, "a promise was rejected and nobody waited for it");
});

Deno.test("prompts, outputs and keys are never logged, whatever goes wrong", async () => {
  const canary = "canarytext";
  const failures = [
    new FakeEngine({ reply: canary }),
    new FakeEngine({
      behave: () => {
        throw new Error(canary);
      },
    }),
    new FakeEngine({
      async *behave() {
        yield { ...end(), error: { message: canary, code: "failed", status: 500 } };
      },
    }),
  ];
  for (const engine of failures) {
    const text = new FakeText();
    const log = new KeptLog();
    await using harness = await serve({ engine, text, logger: log.logger, apiKeys: [digestKey(canary)] });
    const headers = { authorization: `Bearer ${canary}` };
    const bodies: unknown[] = [
      { messages: [{ role: "user", content: canary }] },
      { messages: [{ role: "user", content: canary }], stream: true },
      { messages: [{ role: canary, content: canary }] },
      { messages: canary, user: canary, cache_salt: canary },
      { messages: [{ role: "user", content: canary }], model: canary, stop: canary },
      { messages: [{ role: "user", content: canary }], logit_bias: { [canary]: canary } },
      { messages: [{ role: "user", content: canary }], chat_template_kwargs: { [canary]: canary, messages: canary } },
      `{"${canary}": oops`,
      { messages: [{ role: "user", content: canary.repeat(30) }] },
      { messages: [{ role: "user", content: canary }], unknown_field: canary },
    ];
    for (const body of bodies) await (await harness.post(PATH, body, headers)).text();
    await (await harness.post("/tokenize", { prompt: canary }, headers)).text();
    await (await harness.post("/apply-template", bodies[0], headers)).text();
    await (await harness.fetch(`/${canary}?key=${canary}`, { headers })).text();
    await (await harness.fetch("/v1/models", { headers: { authorization: `Bearer ${canary}x` } })).text();
    assert(!log.text.includes(canary), log.text.split("\n").find((line) => line.includes(canary)));
    assert(log.text.split("\n").length > bodies.length);
    assert(!(await (await harness.fetch("/metrics", { headers })).text()).includes(canary));
  }
});

Deno.test("generation routes answer any JSON with success or a shaped 4xx and hold nothing afterwards", async () => {
  const engine = new FakeEngine();
  await using harness = await serve({ engine });
  const message = fc.record({
    role: fc.oneof(fc.constantFrom("user", "system", "assistant"), fc.jsonValue()),
    content: fc.oneof(fc.string(), fc.jsonValue()),
    name: fc.option(fc.jsonValue(), { nil: undefined }),
  });
  const body = fc.record({
    messages: fc.oneof(fc.array(message, { minLength: 1, maxLength: 3 }), fc.jsonValue()),
    prompt: fc.oneof(fc.string(), fc.array(fc.integer({ min: -2, max: 300 })), fc.jsonValue()),
    temperature: fc.oneof(fc.double({ noNaN: true }), fc.jsonValue()),
    n: fc.oneof(fc.integer({ min: -1, max: 20 }), fc.jsonValue()),
    max_tokens: fc.oneof(fc.integer({ min: -1, max: 300 }), fc.jsonValue()),
    logprobs: fc.oneof(fc.boolean(), fc.integer({ min: -1, max: 22 })),
    stop: fc.oneof(fc.string(), fc.jsonValue()),
    logit_bias: fc.oneof(fc.dictionary(fc.string(), fc.double({ noNaN: true })), fc.jsonValue()),
    stream: fc.oneof(fc.boolean(), fc.jsonValue()),
    echo: fc.oneof(fc.boolean(), fc.jsonValue()),
  }, { requiredKeys: [] });
  await fc.assert(
    fc.asyncProperty(body, fc.constantFrom(PATH, "/v1/completions"), async (fields, path) => {
      const response = await harness.post(path, fields);
      const text = await response.text();
      if (response.status !== 200) {
        assert(response.status >= 400 && response.status < 500, `${response.status} ${text}`);
        assertEquals(Object.keys(JSON.parse(text).error), ["message", "type", "param", "code"]);
      }
      assertEquals(engine.live.size, 0);
    }),
    { numRuns: 300 },
  );
});

Deno.test("64 mixed requests end each exactly once and the metrics agree", async () => {
  const engine = new FakeEngine({
    async *behave(request, signal) {
      for (let i = 0; i < Math.min(request.maxTokens, 20); i++) {
        await pause(2, signal);
        yield token(0, [65]);
      }
      yield { kind: "choice-end", index: 0, reason: "length", text: "" };
      yield end({ promptTokens: request.prompt.length, completionTokens: Math.min(request.maxTokens, 20) });
    },
  });
  await using harness = await serve({ engine });
  const outcomes = await Promise.all(Array.from({ length: 64 }, async (_, index) => {
    const controller = new AbortController();
    const fields = [{}, { stream: true }, { stream: true }, { prompt: "a".repeat(300) }, { temperature: 9 }][index % 5];
    try {
      const response = await harness.fetch("/v1/completions", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ prompt: "abc", max_tokens: 10, ...fields }),
        signal: controller.signal,
      });
      if (index % 5 === 2) {
        await response.body?.getReader().read();
        controller.abort();
        return 499;
      }
      await response.text();
      return response.status;
    } catch {
      return 499;
    }
  }));
  const count = (status: number) => outcomes.filter((outcome) => outcome === status).length;
  assertEquals([count(200), count(499), count(400)], [26, 13, 25]);
  await until(() => engine.live.size === 0);
  const metrics = await (await harness.fetch("/metrics")).text();
  const value = (name: string) => Number(new RegExp(`^infinite_llm:${name} (.*)$`, "m").exec(metrics)?.[1]);
  assertEquals(value('request_success_total{model_name="fake",finished_reason="length"}'), 26);
  assertEquals(value('request_success_total{model_name="fake",finished_reason="abort"}'), 13);
  assertEquals(value('prompt_tokens_total{model_name="fake"}'), 26 * 3);
  assertEquals(value("http_requests_queued"), 0);
  assertEquals(value('http_requests_total{handler="/v1/completions",status="400"}'), 25);
});
