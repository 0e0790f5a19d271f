import { assertEquals } from "@std/assert";
import { FakeEngine } from "./fakes/engine.ts";
import { events, serve } from "./fakes/server.ts";
import { FakeText } from "./fakes/text.ts";
import { type CompletionChoice, type CompletionLogprobs, textCompletion } from "./response_types.ts";

const PATH = "/v1/completions";

Deno.test("answerCompletion() answers every form of prompt", async () => {
  const engine = new FakeEngine();
  await using harness = await serve({ engine });
  const cases: readonly (readonly [unknown, number[][]])[] = [
    ["ab", [[97, 98]]],
    [["a", "bc"], [[97], [98, 99]]],
    [[5, 6, 7], [[5, 6, 7]]],
    [[[5], [6, 7]], [[5], [6, 7]]],
  ];
  for (const [prompt, expected] of cases) {
    engine.requests.length = 0;
    const response = await harness.post(PATH, { prompt });
    const { choices } = textCompletion.parse(await response.json());
    assertEquals(engine.requests.map((request) => Array.from(request.prompt)), expected);
    assertEquals(choices.map((choice) => [choice.index, choice.text]), expected.map((_, index) => [index, "Hello"]));
  }
});

Deno.test("answerCompletion() recognises control tokens in texts and puts the model's first id before them once", async () => {
  const engine = new FakeEngine();
  await using harness = await serve({ engine, text: new FakeText({ bos: 258 }) });
  for (const prompt of ["a<|im_end|>", "<s>a", [5]]) {
    await (await harness.post(PATH, { prompt })).body?.cancel();
  }
  assertEquals(engine.requests.map((request) => Array.from(request.prompt)), [[258, 97, 257], [258, 97], [5]]);
});

Deno.test("answerCompletion() generates 16 tokens by default, fewer where fewer fit", async () => {
  const engine = new FakeEngine();
  await using harness = await serve({ engine });
  for (const prompt of ["a", "a".repeat(190)]) await (await harness.post(PATH, { prompt })).body?.cancel();
  assertEquals(engine.requests.map((request) => request.maxTokens), [16, 10]);
});

Deno.test("answerCompletion() numbers the choices of several prompts", async () => {
  await using harness = await serve();
  const response = await harness.post(PATH, { prompt: ["a", "bc"], n: 2, max_tokens: 1, best_of: 2 });
  const { choices, usage } = textCompletion.parse(await response.json());
  assertEquals(choices.map((choice) => choice.index), [0, 1, 2, 3]);
  assertEquals([usage.prompt_tokens, usage.completion_tokens], [3, 4]);
});

Deno.test("answerCompletion() echoes prompts with log-probabilities, also without generating", async () => {
  await using harness = await serve();
  const response = await harness.post(PATH, { prompt: "aé", echo: true, logprobs: 1, max_tokens: 1 });
  const { choices: [choice] } = textCompletion.parse(await response.json());
  assertEquals(choice.text, "aéH");
  assertEquals(choice.logprobs, {
    tokens: ["a", "bytes:\\xc3", "bytes:\\xa9", "H"],
    token_logprobs: [null, -0.5, -0.5, -0.5],
    top_logprobs: [null, { "bytes:\\xc3": -0.5 }, { "bytes:\\xa9": -0.5 }, { H: -0.5 }],
    text_offset: [0, 1, 2, 2],
  });
  const scored = await harness.post(PATH, { prompt: [97, 98], echo: true, logprobs: 0, max_tokens: 0 });
  const { choices: [only], usage } = textCompletion.parse(await scored.json());
  assertEquals([only.text, only.logprobs?.tokens, usage.completion_tokens], ["ab", ["a", "b"], 0]);
});

Deno.test("answerCompletion() lists the chosen token beside its rivals", async () => {
  await using harness = await serve();
  const response = await harness.post(PATH, { prompt: "a", logprobs: 0, max_tokens: 2 });
  const { choices: [choice] } = textCompletion.parse(await response.json());
  assertEquals(choice.logprobs?.top_logprobs, [{ H: -0.5 }, { e: -0.5 }]);
});

Deno.test("answerCompletion() reports token ids and shows tokens as ids when asked to", async () => {
  await using harness = await serve();
  const fields = { prompt: "ab", max_tokens: 2, return_token_ids: true, return_tokens_as_token_ids: true, logprobs: 0 };
  const response = await harness.post(PATH, { ...fields, prompt_logprobs: 0 });
  const { choices: [choice] } = textCompletion.parse(await response.json());
  assertEquals([choice.prompt_token_ids, choice.token_ids], [[97, 98], [72, 101]]);
  assertEquals(choice.logprobs?.tokens, ["token_id:72", "token_id:101"]);
  assertEquals(choice.prompt_logprobs, [null, { "98": { logprob: -0.5, rank: 1, decoded_token: "b" } }]);
});

Deno.test("answerCompletion() counts offsets in the text that it echoes", async () => {
  await using harness = await serve({ text: new FakeText({ bos: 258 }) });
  const echo = async (prompt: unknown, skip: boolean) => {
    const fields = { prompt, echo: true, logprobs: 0, max_tokens: 1, skip_special_tokens: skip };
    const { choices: [choice] } = textCompletion.parse(await (await harness.post(PATH, fields)).json());
    return [choice.text, choice.logprobs?.text_offset];
  };
  // The model's first id is no part of a text prompt; control tokens that the client wrote are.
  for (const skip of [true, false]) {
    assertEquals(await echo("a<|im_end|>b", skip), ["a<|im_end|>bH", [0, 0, 1, 11, 12]]);
  }
  assertEquals(await echo([258, 97], true), ["aH", [0, 0, 1]]);
  assertEquals(await echo([258, 97], false), ["<s>aH", [0, 3, 4]]);
});

interface StreamedChoice {
  readonly index: number;
  readonly text: string;
  readonly logprobs: CompletionLogprobs | null;
  readonly finish_reason: string | null;
  readonly token_ids?: readonly number[];
  readonly prompt_token_ids?: readonly number[];
}

Deno.test("answerCompletion() streams to the same answer as it gives whole", async () => {
  await using harness = await serve();
  for (
    const fields of [
      {},
      { echo: true },
      { echo: true, logprobs: 2 },
      { logprobs: 1, return_token_ids: true, n: 2 },
      { prompt: ["ab", [99]], echo: true, return_token_ids: true, n: 2 },
      { prompt: ["ab", [99]], echo: true, logprobs: 1, return_token_ids: true },
    ]
  ) {
    const body = { prompt: "ab", ...fields };
    const whole = textCompletion.parse(await (await harness.post(PATH, body)).json());
    const response = await harness.post(PATH, { ...body, stream: true, stream_options: { include_usage: true } });
    const chunks = events(await response.text());
    assertEquals(chunks.pop(), "[DONE]");
    const parts = chunks as { readonly choices: readonly StreamedChoice[]; readonly usage?: unknown }[];
    assertEquals(parts.pop()?.usage, whole.usage);
    for (const choice of whole.choices) {
      assertEquals(joined(parts, choice.index), comparable(choice), JSON.stringify(fields));
    }
  }
});

function comparable(choice: CompletionChoice): unknown {
  return {
    text: choice.text,
    tokens: choice.logprobs?.tokens ?? [],
    offsets: choice.logprobs?.text_offset ?? [],
    logprobs: choice.logprobs?.token_logprobs ?? [],
    ids: choice.token_ids ?? [],
    promptIds: choice.prompt_token_ids ?? [],
    reason: choice.finish_reason,
  };
}

function joined(parts: readonly { readonly choices: readonly StreamedChoice[] }[], index: number): unknown {
  const own = parts.flatMap((part) => part.choices).filter((choice) => choice.index === index);
  return {
    text: own.map((choice) => choice.text).join(""),
    tokens: own.flatMap((choice) => choice.logprobs?.tokens ?? []),
    offsets: own.flatMap((choice) => choice.logprobs?.text_offset ?? []),
    logprobs: own.flatMap((choice) => choice.logprobs?.token_logprobs ?? []),
    ids: own.flatMap((choice) => choice.token_ids ?? []),
    promptIds: own.flatMap((choice) => choice.prompt_token_ids ?? []),
    reason: own.at(-1)?.finish_reason,
  };
}
