import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { digestKey } from "./api_keys.ts";
import { FakeEngine } from "./fakes/engine.ts";
import { serve } from "./fakes/server.ts";
import { FAKE_VOCABULARY, FakeText } from "./fakes/text.ts";

const MESSAGES = [{ role: "user", content: "hi" }];

Deno.test("POST /v1/chat/completions refuses a number that JSON turns into infinity", async () => {
  await using harness = await serve();
  const response = await harness.post(
    "/v1/chat/completions",
    '{"messages":[{"role":"user","content":"a"}],"temperature":1e999}',
  );
  assertEquals((await response.json()).error.param, "temperature");
});

Deno.test("POST /v1/chat/completions refuses a long text before it is tokenized", async () => {
  const text = new FakeText();
  await using harness = await serve({ text });
  const response = await harness.post("/v1/chat/completions", {
    messages: [{ role: "user", content: "a".repeat(100_000) }],
  });
  assertEquals((await response.json()).error.code, "context_length_exceeded");
  assertEquals(text.encoded, []);
});

Deno.test("POST /v1/completions refuses ten million ids by the size of the body", async () => {
  await using harness = await serve();
  const response = await harness.post("/v1/completions", `{"prompt":[${"1,".repeat(10_000_000)}1]}`);
  assertEquals((await response.json()).error.code, "body_too_large");
});

Deno.test("generation routes take null as absent", async () => {
  const engine = new FakeEngine();
  await using harness = await serve({ engine });
  const fields = [
    ...["model", "max_tokens", "temperature", "top_p", "n", "stop", "seed", "logit_bias", "stream", "stream_options"],
    ...["user", "tools", "tool_choice", "response_format", "logprobs", "suffix", "best_of", "unknown"],
  ];
  const nulls = Object.fromEntries(fields.map((name) => [name, null]));
  const bases: [string, object][] = [
    ["/v1/chat/completions", { messages: MESSAGES }],
    ["/v1/completions", { prompt: "hi" }],
  ];
  for (const [path, base] of bases) {
    const response = await harness.post(path, { ...nulls, ...base });
    assertEquals(response.status, 200);
    await response.body?.cancel();
  }
  assertEquals(engine.requests[0].sampling?.temperature, undefined);
});

Deno.test("generation routes accept unserved fields whose value asks for nothing", async () => {
  await using harness = await serve();
  const harmless = {
    tools: [],
    tool_choice: "auto",
    response_format: { type: "text" },
    modalities: ["text"],
    echo: false,
    store: false,
    stop: [],
    top_logprobs: 0,
    use_beam_search: false,
  };
  const response = await harness.post("/v1/chat/completions", { messages: MESSAGES, ...harmless });
  assertEquals(response.status, 200, await response.text());
});

Deno.test("generation routes accept unknown fields and log their names, not their values", async () => {
  await using harness = await serve();
  const body = `{"messages":[{"role":"user","content":"hi"}],"metadata":{"a":"hidden-value"},"__proto__":{"n":99}}`;
  const response = await harness.post("/v1/chat/completions", body);
  assertEquals((await response.json()).choices.length, 1);
  await harness.log.logger.flush();
  assertStringIncludes(harness.log.text, '"ignored":["metadata","__proto__"]');
  assert(!harness.log.text.includes("hidden-value"));
});

Deno.test("generation routes hand every sampling field to the engine", async () => {
  const engine = new FakeEngine();
  await using harness = await serve({ engine });
  const response = await harness.post("/v1/chat/completions", {
    messages: MESSAGES,
    temperature: 0.5,
    top_p: 0.9,
    top_k: 40,
    min_p: 0.05,
    repetition_penalty: 1.1,
    presence_penalty: 0.2,
    frequency_penalty: -0.3,
    logit_bias: { 5: -100, 7: 2.5 },
    seed: -7,
    n: 2,
    max_tokens: 9,
    min_tokens: 3,
    ignore_eos: true,
    stop: ["a", "b"],
    stop_token_ids: [5, 6],
    include_stop_str_in_output: true,
    skip_special_tokens: false,
    logprobs: true,
    top_logprobs: 4,
    prompt_logprobs: 2,
    priority: -5,
    user: "someone",
  });
  assertEquals(response.status, 200, await response.text());
  const { id, prompt, ...request } = engine.requests[0];
  assert(id.startsWith("chatcmpl-") && prompt.length > 0);
  assertEquals(request, {
    maxTokens: 9,
    n: 2,
    priority: -5,
    cacheSalt: "",
    tenant: "",
    sampling: {
      temperature: 0.5,
      topP: 0.9,
      topK: 40,
      minP: 0.05,
      repetitionPenalty: 1.1,
      presencePenalty: 0.2,
      frequencyPenalty: -0.3,
      logitBias: new Map([[5, -100], [7, 2.5]]),
      seed: -7,
      minTokens: 3,
      ignoreEos: true,
      stop: ["a", "b"],
      stopTokenIds: [5, 6],
      includeStop: true,
      skipSpecial: false,
      logprobs: 4,
      promptLogprobs: 2,
    },
  });
});

Deno.test("generation routes bring edge values of sampling into the engine's range", async () => {
  const engine = new FakeEngine();
  await using harness = await serve({ engine });
  for (const fields of [{ temperature: 0 }, { temperature: 1e-30 }, { top_k: -1 }, { top_k: 1e9 }, { stop: "x" }]) {
    const response = await harness.post("/v1/completions", { prompt: "hi", ...fields });
    assertEquals(response.status, 200, await response.text());
  }
  const [zero, tiny, all, most, stop] = engine.requests.map((request) => request.sampling);
  assertEquals([zero?.temperature, tiny?.temperature], [0, 0.01]);
  assertEquals([all?.topK, most?.topK], [0, FAKE_VOCABULARY]);
  assertEquals(stop?.stop, ["x"]);
});

Deno.test("POST /v1/chat/completions lets max_completion_tokens go before max_tokens and fills the context by default", async () => {
  const engine = new FakeEngine();
  await using harness = await serve({ engine });
  for (const fields of [{ max_tokens: 3, max_completion_tokens: 7 }, { max_tokens: 3 }, {}]) {
    const response = await harness.post("/v1/chat/completions", { messages: MESSAGES, ...fields });
    await response.body?.cancel();
  }
  const [both, old, none] = engine.requests;
  assertEquals([both.maxTokens, old.maxTokens, none.maxTokens], [7, 3, 200 - none.prompt.length]);
});

Deno.test("generation routes keep a client's cache salt inside its tenant", async () => {
  const engine = new FakeEngine();
  await using harness = await serve({ engine, apiKeys: [digestKey("one"), digestKey("two")] });
  const scope = async (key: string, cacheSalt?: string) => {
    const response = await harness.post("/v1/completions", { prompt: "hi", cache_salt: cacheSalt }, {
      authorization: `Bearer ${key}`,
    });
    assertEquals(response.status, 200, await response.text());
    return engine.requests[engine.requests.length - 1].cacheSalt;
  };
  const first = await scope("one");
  assertEquals(await scope("one"), first);
  assertEquals(await scope("one", "s"), await scope("one", "s"));
  const scopes = [first, await scope("two"), await scope("one", "s"), await scope("two", "s"), await scope("one", "t")];
  assertEquals(new Set(scopes).size, 5);
  // Not even the other tenant's scope itself, as a salt, opens it.
  assert((await scope("two", first)) !== first);
  assert(engine.requests.every((request) => /^[0-9a-f]{32}$/.test(request.tenant ?? "")));
});

Deno.test("messages keep NUL, controls, noncharacters, marks and long characters as they are", async () => {
  const text = new FakeText();
  let seen = "";
  text.render = (messages) => {
    seen = messages[0].content;
    return "x";
  };
  await using harness = await serve({ text });
  const content = "\0\u0001\u001b\ufffe\u{10ffff}\u202e\u200f👩‍👩‍👧‍👦" + "e" + "\u0301".repeat(30);
  const response = await harness.post("/v1/chat/completions", { messages: [{ role: "user", content }] });
  assertEquals(response.status, 200, await response.text());
  assertEquals(seen, content);
});
