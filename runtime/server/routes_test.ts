import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type { EngineHandle } from "../engine/request.ts";
import { FakeEngine } from "./fakes/engine.ts";
import { serve, until } from "./fakes/server.ts";
import { FAKE_VOCABULARY } from "./fakes/text.ts";
import { modelList, promptBody, tokenizeBody } from "./response_types.ts";

Deno.test("GET /v1/models lists every served name and answers 304 while nothing changed", async () => {
  await using harness = await serve({ servedModelNames: ["org/model", "short"] });
  const response = await harness.fetch("/v1/models");
  const { data } = modelList.parse(await response.json());
  assertEquals(data.map(({ id, max_model_len }) => [id, max_model_len]), [["org/model", 200], ["short", 200]]);
  const etag = response.headers.get("etag") ?? "";
  const again = await harness.fetch("/v1/models", { headers: { "if-none-match": etag } });
  assertEquals([again.status, await again.text()], [304, ""]);
  const changed = await harness.fetch("/v1/models", { headers: { "if-none-match": '"other"' } });
  assertEquals(changed.status, 200);
  await changed.body?.cancel();
});

Deno.test("GET /v1/models/{id} finds names with a slash and refuses others", async () => {
  await using harness = await serve({ servedModelNames: ["org/model"] });
  const found = await harness.fetch("/v1/models/org/model");
  assertEquals((await found.json()).id, "org/model");
  for (const id of ["org", "other", "org/model/x", "..%2f..%2fsecret"]) {
    const response = await harness.fetch(`/v1/models/${id}`);
    assertEquals([response.status, (await response.json()).error.code], [404, "model_not_found"], id);
  }
});

Deno.test("POST /tokenize, /detokenize and /apply-template work without the engine", async () => {
  const engine = new FakeEngine();
  await using harness = await serve({ engine });
  const tokenize = async (body: object) => tokenizeBody.parse(await (await harness.post("/tokenize", body)).json());
  assertEquals(await tokenize({ prompt: "a<s>" }), { tokens: [97, 60, 115, 62], count: 4, max_model_len: 200 });
  assertEquals((await tokenize({ prompt: "a<s>", parse_special: true })).tokens, [97, 258]);
  assertEquals((await tokenize({ prompt: "" })).tokens, []);
  const detokenized = await harness.post("/detokenize", { tokens: [97, 258] });
  assertEquals(promptBody.parse(await detokenized.json()), { prompt: "a<s>" });
  const messages = [{ role: "user", content: "hi" }];
  const template = async (fields: object) =>
    promptBody.parse(await (await harness.post("/apply-template", { messages, ...fields })).json()).prompt;
  assertEquals(await template({}), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
  assertEquals(await template({ add_generation_prompt: false }), "<|im_start|>user\nhi<|im_end|>\n");
  assertEquals(engine.requests.length, 0);
});

Deno.test("tokenizer and template routes name the field at fault", async () => {
  await using harness = await serve();
  const cases: readonly (readonly [string, object, string, string?])[] = [
    ["/tokenize", {}, "prompt"],
    ["/tokenize", { prompt: 5 }, "prompt"],
    ["/tokenize", { prompt: "a", parse_special: "yes" }, "parse_special"],
    ["/tokenize", { prompt: "a".repeat(100_000) }, "prompt", "context_length_exceeded"],
    ["/detokenize", {}, "tokens"],
    ["/detokenize", { tokens: [-1] }, "tokens[0]"],
    ["/detokenize", { tokens: [1, FAKE_VOCABULARY] }, "tokens[1]"],
    ["/detokenize", { tokens: [0.5] }, "tokens[0]"],
    ["/detokenize", { tokens: ["a"] }, "tokens[0]"],
    ["/detokenize", { tokens: Array.from({ length: 201 }, () => 1) }, "tokens"],
    ["/apply-template", {}, "messages"],
    [
      "/apply-template",
      { messages: [{ role: "user", content: [{ type: "image_url" }] }] },
      "messages[0].content[0].type",
      "unsupported_parameter",
    ],
    [
      "/apply-template",
      { messages: [{ role: "user", content: "a" }], chat_template: "x" },
      "chat_template",
      "unsupported_parameter",
    ],
  ];
  for (const [path, body, param, code = "invalid_value"] of cases) {
    const response = await harness.post(path, body);
    const { error } = await response.json();
    assertEquals([response.status, error.param, error.code], [400, param, code]);
  }
});

Deno.test("routes answer 503 while the model loads, liveness and metrics answer, then everything is served", async () => {
  const { promise, resolve } = Promise.withResolvers<EngineHandle>();
  await using harness = await serve({ engine: promise });
  const closed = ["/health/ready", "/v1/models", "/v1/models/fake"];
  for (const path of closed) {
    const response = await harness.fetch(path);
    assertEquals([response.status, (await response.json()).error.code], [503, "model_loading"]);
    assert(Number(response.headers.get("retry-after")) > 0);
  }
  const posts: [string, object][] = [
    ["/v1/chat/completions", { messages: [{ role: "user", content: "a" }] }],
    ["/v1/completions", { prompt: "a" }],
    ["/tokenize", { prompt: "a" }],
    ["/detokenize", { tokens: [1] }],
    ["/apply-template", { messages: [{ role: "user", content: "a" }] }],
  ];
  for (const [path, body] of posts) {
    const response = await harness.post(path, body);
    assertEquals([response.status, (await response.json()).error.code], [503, "model_loading"]);
  }
  assertStringIncludes(await (await harness.fetch("/metrics")).text(), "process_resident_memory_bytes");
  assertEquals(await (await harness.fetch("/health")).json(), { status: "ok" });
  resolve(new FakeEngine());
  await new Promise((done) => setTimeout(done, 0));
  for (const path of closed) {
    const response = await harness.fetch(path);
    assertEquals(response.status, 200, await response.text());
  }
  for (const [path, body] of posts) {
    const response = await harness.post(path, body);
    assertEquals(response.status, 200, await response.text());
  }
});

Deno.test("routes answer 503 when the model could not be loaded, and the log hides what the error says", async () => {
  await using harness = await serve({ engine: Promise.reject(new RangeError("secret path")) });
  const response = await harness.fetch("/health/ready");
  assertEquals([response.status, (await response.json()).error.code], [503, "model_failed"]);
  assertMatch(harness.log.text, /model failed to load.*RangeError/);
  assert(!harness.log.text.includes("secret path"));
});

Deno.test("GET /health/ready tells a stalled engine from an idle and a working one", async () => {
  const engine = new FakeEngine();
  await using harness = await serve({ engine, limits: { stallMs: 40 } });
  const code = async () => {
    const response = await harness.fetch("/health/ready");
    const body = await response.json();
    return response.status === 200 ? "ready" : body.error.code;
  };
  const wait = () => new Promise((resolve) => setTimeout(resolve, 60));
  await wait();
  assertEquals(await code(), "ready");
  engine.state = { ...engine.state, running: 1 };
  await wait();
  assertEquals(await code(), "engine_stalled");
  engine.state = { ...engine.state, steps: engine.state.steps + 1 };
  assertEquals(await code(), "ready");
  await wait();
  assertEquals(await code(), "engine_stalled");
  await (await harness.post("/v1/completions", { prompt: "a" })).body?.cancel();
  assertEquals(await code(), "ready");
  engine.state = { ...engine.state, running: 0 };
  await wait();
  assertEquals(await code(), "ready");
  engine.stats = () => Promise.reject(new Error("gone"));
  assertEquals(await code(), "engine_unresponsive");
});

Deno.test("GET /openapi.json describes every route", async () => {
  await using harness = await serve();
  const document = await (await harness.fetch("/openapi.json")).json();
  assertEquals(document.openapi, "3.1.0");
  assertEquals(Object.keys(document.paths).sort(), [
    "/apply-template",
    "/cluster",
    "/cluster/evacuate",
    "/cluster/leave",
    "/cluster/move",
    "/cluster/pin",
    "/detokenize",
    "/health",
    "/health/ready",
    "/metrics",
    "/openapi.json",
    "/tokenize",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/models",
    "/v1/models/{id}",
  ]);
  const chat = document.paths["/v1/chat/completions"].post;
  const { properties, required } = chat.requestBody.content["application/json"].schema;
  assertEquals(required, ["messages"]);
  assertEquals([properties.temperature.maximum, properties.n.maximum], [2, 16]);
  assert("text/event-stream" in chat.responses["200"].content);
  assertEquals(document.paths["/v1/models/{id}"].get.parameters[0].name, "id");
});

Deno.test("generation routes turn requests away when the queue is full and let them in again later", async () => {
  const engine = new FakeEngine({ delayMs: 200 });
  await using harness = await serve({ engine, limits: { queuedRequests: 2 } });
  const ask = (body: object) => harness.post("/v1/completions", body);
  const waiting = [ask({ prompt: "a" }), ask({ prompt: "b", stream: true })];
  await until(() => engine.live.size === 2);
  for (const body of [{ prompt: "c" }, { prompt: "c", stream: true }]) {
    const refused = await ask(body);
    assertEquals([refused.status, refused.headers.get("retry-after")], [429, "1"]);
    const { error } = await refused.json();
    assertEquals([error.code, error.type], ["queue_full", "rate_limit_error"]);
  }
  for (const response of await Promise.all(waiting)) assertEquals(response.status, 200, await response.text());
  // Refused and failed requests give their places back.
  for (let i = 0; i < 5; i++) await (await ask({ prompt: "a".repeat(500) })).body?.cancel();
  const batch = await ask({ prompt: ["a", "b"] });
  assertEquals((await batch.json()).choices.length, 2);
  const tooMany = await ask({ prompt: ["a", "b", "c"] });
  assertEquals((await tooMany.json()).error.code, "queue_full");
});
