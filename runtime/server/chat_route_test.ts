import { assert, assertEquals } from "@std/assert";
import { TemplateError } from "../text/codec.ts";
import { FakeEngine } from "./fakes/engine.ts";
import { serve } from "./fakes/server.ts";
import { FakeText } from "./fakes/text.ts";
import { type ChatCompletion, chatCompletion } from "./response_types.ts";

const PATH = "/v1/chat/completions";
const MESSAGES = [{ role: "user", content: "hi" }];

Deno.test("answerChat() answers with text, finish reason, usage and the model's names", async () => {
  await using harness = await serve({ servedModelNames: ["main", "alias"] });
  const response = await harness.post(PATH, { model: "alias", messages: MESSAGES });
  const body: ChatCompletion = chatCompletion.parse(await response.json());
  assertEquals(body.choices, [{
    index: 0,
    message: { role: "assistant", content: "Hello" },
    logprobs: null,
    finish_reason: "stop",
    stop_reason: null,
  }]);
  assertEquals(body.usage, {
    prompt_tokens: 21,
    completion_tokens: 5,
    total_tokens: 26,
    prompt_tokens_details: { cached_tokens: 1 },
  });
  assertEquals([body.model, body.object, body.system_fingerprint], ["alias", "chat.completion", "fp_0123456789ab"]);
});

Deno.test("answerChat() reports log-probabilities with bytes and rivals", async () => {
  await using harness = await serve({ engine: new FakeEngine({ reply: "é" }) });
  const response = await harness.post(PATH, { messages: MESSAGES, logprobs: true, top_logprobs: 2 });
  const { choices: [choice] } = chatCompletion.parse(await response.json());
  assertEquals(choice.logprobs?.content[0], {
    token: "bytes:\\xc3",
    logprob: -0.5,
    bytes: [0xc3],
    top_logprobs: [
      { token: "bytes:\\xc3", logprob: -0.5, bytes: [0xc3] },
      { token: "bytes:\\xc4", logprob: -1.5, bytes: [0xc4] },
    ],
  });
  const none = await harness.post(PATH, { messages: MESSAGES, logprobs: true });
  assertEquals(chatCompletion.parse(await none.json()).choices[0].logprobs?.content[1].top_logprobs, []);
});

Deno.test("answerChat() reports token ids and prompt log-probabilities when asked to", async () => {
  const engine = new FakeEngine();
  await using harness = await serve({ engine });
  const response = await harness.post(PATH, {
    messages: MESSAGES,
    return_token_ids: true,
    prompt_logprobs: 1,
    logprobs: true,
    return_tokens_as_token_ids: true,
  });
  const body = chatCompletion.parse(await response.json());
  assertEquals(body.choices[0].token_ids, [72, 101, 108, 108, 111]);
  assertEquals(body.prompt_token_ids, Array.from(engine.requests[0].prompt));
  assertEquals(body.prompt_logprobs?.slice(0, 2), [
    null,
    { "117": { logprob: -0.5, rank: 1, decoded_token: "u" } },
  ]);
  assertEquals(body.choices[0].logprobs?.content[0].token, "token_id:72");
});

Deno.test("answerChat() joins text parts and gives developer messages the system's role", async () => {
  const text = new FakeText();
  await using harness = await serve({ text });
  const response = await harness.post(PATH, {
    messages: [
      { role: "developer", content: "be brief" },
      { role: "user", content: [{ type: "text", text: "a" }, { type: "text", text: "b" }], name: "eve" },
    ],
  });
  await response.body?.cancel();
  assertEquals(text.encoded, [
    "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n",
  ]);
});

Deno.test("answerChat() opens the assistant's turn unless told not to, and passes template variables on", async () => {
  const text = new FakeText();
  await using harness = await serve({ text });
  const ask = async (fields: object) => {
    const response = await harness.post(PATH, { messages: MESSAGES, ...fields });
    await response.body?.cancel();
    return text.lastRender;
  };
  assertEquals(await ask({}), { addGenerationPrompt: true, variables: undefined });
  assertEquals(await ask({ add_generation_prompt: false, chat_template_kwargs: { enable_thinking: false } }), {
    addGenerationPrompt: false,
    variables: { enable_thinking: false },
  });
});

Deno.test("answerChat() continues the last message without closing its turn", async () => {
  const engine = new FakeEngine();
  const text = new FakeText();
  await using harness = await serve({ engine, text });
  const response = await harness.post(PATH, {
    messages: [...MESSAGES, { role: "assistant", content: "Rome<|im_end|>" }],
    continue_final_message: true,
  });
  await response.body?.cancel();
  const prompt = Array.from(engine.requests[0].prompt);
  assertEquals(
    await text.decode(prompt),
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nRome<|im_end|>",
  );
  // What the message spells stays text: one control token closes the user's turn, none the assistant's.
  assertEquals(prompt.filter((id) => id === 257).length, 1);
});

Deno.test("answerChat() answers a failing template with 400", async () => {
  const text = new FakeText();
  text.render = () => {
    throw new TemplateError("roles must alternate");
  };
  await using harness = await serve({ text });
  const response = await harness.post(PATH, { messages: MESSAGES });
  const { error } = await response.json();
  assertEquals([response.status, error.code, error.param], [400, "template_error", "messages"]);
});

Deno.test("answerChat() gives n choices their places", async () => {
  await using harness = await serve();
  const response = await harness.post(PATH, { messages: MESSAGES, n: 3, max_tokens: 4 });
  const { choices, usage } = chatCompletion.parse(await response.json());
  assertEquals(choices.map((choice) => [choice.index, choice.message.content, choice.finish_reason]), [
    [0, "Hell", "length"],
    [1, "Hell", "length"],
    [2, "Hell", "length"],
  ]);
  assertEquals(usage.completion_tokens, 12);
});

Deno.test("answerChat() uses a fresh engine id for every request, whatever the client's request id", async () => {
  const engine = new FakeEngine({ delayMs: 5 });
  await using harness = await serve({ engine });
  const responses = await Promise.all(
    Array.from({ length: 8 }, () => harness.post(PATH, { messages: MESSAGES }, { "x-request-id": "same" })),
  );
  await Promise.all(responses.map((response) => response.body?.cancel()));
  assertEquals(new Set(engine.requests.map((request) => request.id)).size, 8);
  assert(responses.every((response) => response.headers.get("x-request-id") === "same"));
});
