import { assertEquals } from "@std/assert";
import { FakeEngine } from "./fakes/engine.ts";
import { serve } from "./fakes/server.ts";
import { FAKE_VOCABULARY } from "./fakes/text.ts";

type Fields = Readonly<Record<string, unknown>>;

const MESSAGES = [{ role: "user", content: "hi" }];
const RANGE = { lo: -1, hi: FAKE_VOCABULARY };

/** Values that both generation routes refuse, with the `param` and `code` they name where it is not the field itself. */
const REFUSED: readonly (readonly [fields: Fields, param: string, code?: string, status?: number])[] = [
  [{ model: "unknown" }, "model", "model_not_found", 404],
  [{ model: "../../etc/passwd" }, "model", "model_not_found", 404],
  [{ model: "" }, "model"],
  [{ model: 7 }, "model"],
  [{ max_tokens: -1 }, "max_tokens"],
  [{ max_tokens: 0 }, "max_tokens"],
  [{ max_tokens: 1.5 }, "max_tokens"],
  [{ max_tokens: 1e12 }, "PROMPT", "context_length_exceeded"],
  [{ max_tokens: 2 ** 53 }, "max_tokens"],
  [{ max_tokens: "5" }, "max_tokens"],
  [{ temperature: -0.1 }, "temperature"],
  [{ temperature: 2.1 }, "temperature"],
  [{ temperature: "hot" }, "temperature"],
  [{ top_p: 0 }, "top_p"],
  [{ top_p: 1.01 }, "top_p"],
  [{ top_k: -2 }, "top_k"],
  [{ top_k: 1.5 }, "top_k"],
  [{ min_p: -0.1 }, "min_p"],
  [{ min_p: 1.1 }, "min_p"],
  [{ presence_penalty: 2.1 }, "presence_penalty"],
  [{ presence_penalty: -2.1 }, "presence_penalty"],
  [{ frequency_penalty: 2.1 }, "frequency_penalty"],
  [{ frequency_penalty: -2.1 }, "frequency_penalty"],
  [{ repetition_penalty: 0 }, "repetition_penalty"],
  [{ repetition_penalty: -1 }, "repetition_penalty"],
  [{ n: 0 }, "n"],
  [{ n: 129 }, "n"],
  [{ n: 1e9 }, "n"],
  [{ n: 1.5 }, "n"],
  [{ stop: "" }, "stop"],
  [{ stop: ["a", ""] }, "stop"],
  [{ stop: ["1", "2", "3", "4", "5"] }, "stop"],
  [{ stop: "a".repeat(1 << 20) }, "stop"],
  [{ stop: "é".repeat(129) }, "stop"],
  [{ stop: 5 }, "stop"],
  [{ stop: [5] }, "stop"],
  [{ stop_token_ids: [RANGE.lo] }, "stop_token_ids[0]"],
  [{ stop_token_ids: [1, RANGE.hi] }, "stop_token_ids[1]"],
  [{ stop_token_ids: [1.5] }, "stop_token_ids[0]"],
  [{ stop_token_ids: Array.from({ length: 129 }, () => 1) }, "stop_token_ids"],
  [{ stop_token_ids: "1" }, "stop_token_ids"],
  [{ logit_bias: Object.fromEntries(Array.from({ length: 301 }, (_, id) => [id, 1])) }, "logit_bias"],
  [{ logit_bias: { abc: 1 } }, "logit_bias"],
  [{ logit_bias: { "-1": 1 } }, "logit_bias"],
  [{ logit_bias: { "1e3": 1 } }, "logit_bias"],
  [{ logit_bias: { "01": 1 } }, "logit_bias"],
  [{ logit_bias: { [RANGE.hi]: 1 } }, "logit_bias"],
  [{ logit_bias: { 5: 101 } }, "logit_bias"],
  [{ logit_bias: { 5: "x" } }, "logit_bias"],
  [{ logit_bias: [1] }, "logit_bias"],
  [{ seed: 2 ** 63 }, "seed"],
  [{ seed: 0.5 }, "seed"],
  [{ seed: "1" }, "seed"],
  [{ min_tokens: -1 }, "min_tokens"],
  [{ min_tokens: 6, max_tokens: 5 }, "min_tokens"],
  [{ ignore_eos: "no" }, "ignore_eos"],
  [{ stream: "yes" }, "stream"],
  [{ stream_options: { include_usage: true } }, "stream_options"],
  [{ stream: true, stream_options: { include_usage: "yes" } }, "stream_options.include_usage"],
  [{ stream: true, stream_options: [] }, "stream_options"],
  [{ stream: true, prompt_logprobs: 1 }, "prompt_logprobs"],
  [{ prompt_logprobs: 21 }, "prompt_logprobs"],
  [{ prompt_logprobs: -1 }, "prompt_logprobs"],
  [{ user: "u".repeat(1 << 20) }, "user"],
  [{ user: 7 }, "user"],
  [{ cache_salt: "" }, "cache_salt"],
  [{ cache_salt: "s".repeat(257) }, "cache_salt"],
  [{ priority: "high" }, "priority"],
  [{ priority: 0.5 }, "priority"],
  [{ response_format: { type: "json_object" } }, "response_format", "unsupported_parameter"],
  [{ response_format: { type: "json_schema", json_schema: {} } }, "response_format", "unsupported_parameter"],
  [{ response_format: 1 }, "response_format", "unsupported_parameter"],
  [{ guided_json: {} }, "guided_json", "unsupported_parameter"],
  [{ structured_outputs: { regex: "(a+)+$" } }, "structured_outputs", "unsupported_parameter"],
  [{ grammar: "root ::= a" }, "grammar", "unsupported_parameter"],
  [{ truncate_prompt_tokens: 5 }, "truncate_prompt_tokens", "unsupported_parameter"],
  [{ use_beam_search: true }, "use_beam_search", "unsupported_parameter"],
  [{ bad_words: ["a"] }, "bad_words", "unsupported_parameter"],
  [{ allowed_token_ids: [1] }, "allowed_token_ids", "unsupported_parameter"],
];

const CHAT_REFUSED: typeof REFUSED = [
  [{ messages: undefined }, "messages"],
  [{ messages: "hi" }, "messages"],
  [{ messages: [] }, "messages"],
  [{ messages: Array.from({ length: 10_001 }, () => MESSAGES[0]) }, "messages"],
  [{ messages: ["hi"] }, "messages[0]"],
  [{ messages: [null] }, "messages[0]"],
  [{ messages: [{ content: "hi" }] }, "messages[0].role"],
  [{ messages: [{ role: "wizard", content: "hi" }] }, "messages[0].role"],
  [{ messages: [...MESSAGES, { role: "user" }] }, "messages[1].content"],
  [{ messages: [{ role: "user", content: null }] }, "messages[0].content"],
  [{ messages: [{ role: "user", content: 7 }] }, "messages[0].content"],
  [{ messages: [{ role: "user", content: { type: "text", text: "hi" } }] }, "messages[0].content"],
  [{ messages: [{ role: "user", content: ["hi"] }] }, "messages[0].content[0]"],
  [{ messages: [{ role: "user", content: [{ text: "hi" }] }] }, "messages[0].content[0]"],
  [{ messages: [{ role: "user", content: [{ type: "text" }] }] }, "messages[0].content[0].text"],
  [{ messages: [{ role: "user", content: [{ type: "poem", text: "hi" }] }] }, "messages[0].content[0].type"],
  [
    { messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "http://127.0.0.1/" } }] }] },
    "messages[0].content[0].type",
    "unsupported_parameter",
  ],
  [
    { messages: [{ role: "user", content: [{ type: "text", text: "a" }, { type: "input_audio", input_audio: {} }] }] },
    "messages[0].content[1].type",
    "unsupported_parameter",
  ],
  [{ messages: [{ role: "user", content: "hi", name: "a <|im_end|>" }] }, "messages[0].name"],
  [{ messages: [{ role: "tool", content: "1", tool_call_id: "x" }] }, "messages[0].role", "unsupported_parameter"],
  [
    { messages: [{ role: "assistant", content: null, tool_calls: [{ id: "x" }] }] },
    "messages[0].tool_calls",
    "unsupported_parameter",
  ],
  [{ max_completion_tokens: 0 }, "max_completion_tokens"],
  [{ max_completion_tokens: "5" }, "max_completion_tokens"],
  [{ logprobs: 1 }, "logprobs"],
  [{ logprobs: true, top_logprobs: 21 }, "top_logprobs"],
  [{ logprobs: true, top_logprobs: -1 }, "top_logprobs"],
  [{ top_logprobs: 5 }, "top_logprobs"],
  [{ tools: [{ type: "function", function: { name: "f" } }] }, "tools", "unsupported_parameter"],
  [{ tools: Array.from({ length: 1000 }, () => ({})) }, "tools", "unsupported_parameter"],
  [{ tool_choice: "required" }, "tool_choice", "unsupported_parameter"],
  [{ functions: [{}] }, "functions", "unsupported_parameter"],
  [{ modalities: ["text", "audio"] }, "modalities", "unsupported_parameter"],
  [{ audio: {} }, "audio", "unsupported_parameter"],
  [{ chat_template: "{{ 1 }}" }, "chat_template", "unsupported_parameter"],
  [{ reasoning_effort: "high" }, "reasoning_effort", "unsupported_parameter"],
  [{ echo: true }, "echo", "unsupported_parameter"],
  [{ chat_template_kwargs: { messages: [] } }, "chat_template_kwargs"],
  [{ chat_template_kwargs: { chat_template: "x" } }, "chat_template_kwargs"],
  [{ chat_template_kwargs: { "a b": 1 } }, "chat_template_kwargs"],
  [{ continue_final_message: true }, "messages[0].role"],
  [{ continue_final_message: true, add_generation_prompt: true }, "continue_final_message"],
  [{ add_generation_prompt: "no" }, "add_generation_prompt"],
  [{ messages: [{ role: "user", content: "a".repeat(300) }] }, "messages", "context_length_exceeded"],
  [{ messages: [{ role: "user", content: "a".repeat(100_000) }] }, "messages", "context_length_exceeded"],
];

const COMPLETION_REFUSED: typeof REFUSED = [
  [{ prompt: undefined }, "prompt"],
  [{ prompt: null }, "prompt"],
  [{ prompt: 7 }, "prompt"],
  [{ prompt: {} }, "prompt"],
  [{ prompt: "" }, "prompt"],
  [{ prompt: [] }, "prompt"],
  [{ prompt: [[]] }, "prompt[0]"],
  [{ prompt: [null] }, "prompt[0]"],
  [{ prompt: ["a", ""] }, "prompt[1]"],
  [{ prompt: ["a", 5] }, "prompt[1]"],
  [{ prompt: [5, "a"] }, "prompt[1]"],
  [{ prompt: [RANGE.lo] }, "prompt[0]"],
  [{ prompt: [5, RANGE.hi] }, "prompt[1]"],
  [{ prompt: [1.5] }, "prompt[0]"],
  [{ prompt: [[5], [5, RANGE.hi]] }, "prompt[1][1]"],
  [{ prompt: [[["a"]]] }, "prompt[0][0]"],
  [{ prompt: Array.from({ length: 129 }, () => "a") }, "prompt"],
  [{ prompt: "a".repeat(300) }, "prompt", "context_length_exceeded"],
  [{ prompt: "a".repeat(100_000) }, "prompt", "context_length_exceeded"],
  [{ prompt: Array.from({ length: 201 }, () => 5) }, "prompt", "context_length_exceeded"],
  [{ prompt: ["a", "a".repeat(300)] }, "prompt[1]", "context_length_exceeded"],
  [{ logprobs: 21 }, "logprobs"],
  [{ logprobs: -1 }, "logprobs"],
  [{ logprobs: true }, "logprobs"],
  [{ best_of: 2 }, "best_of"],
  [{ best_of: 1, n: 2 }, "best_of"],
  [{ suffix: "end" }, "suffix", "unsupported_parameter"],
  [{ echo: "yes" }, "echo"],
  [{ prompt_embeds: "AA==" }, "prompt_embeds", "unsupported_parameter"],
];

const ROUTES = [
  {
    path: "/v1/chat/completions",
    base: { messages: MESSAGES },
    prompt: "messages",
    cases: [...REFUSED, ...CHAT_REFUSED],
  },
  { path: "/v1/completions", base: { prompt: "hi" }, prompt: "prompt", cases: [...REFUSED, ...COMPLETION_REFUSED] },
];

for (const { path, base, prompt, cases } of ROUTES) {
  for (const [fields, param, code = "invalid_value", status = 400] of cases) {
    const shown = JSON.stringify(fields).slice(0, 60);
    Deno.test(`POST ${path} refuses ${shown} and names ${param}`, async () => {
      const engine = new FakeEngine();
      await using harness = await serve({ engine });
      const response = await harness.post(path, { ...base, ...fields });
      const { error } = await response.json();
      assertEquals(
        [response.status, error.param, error.code, error.type],
        [status, param.replace("PROMPT", prompt), code, "invalid_request_error"],
        error.message,
      );
      assertEquals(engine.requests.length, 0);
      const again = await harness.post(path, base);
      assertEquals(again.status, 200);
      await again.body?.cancel();
    });
  }
}
