import { assertEquals, assertStringIncludes } from "@std/assert";
import OpenAI from "openai";
import { runCli, RunningCli } from "../cli/cli_process.ts";
import { realModelPath } from "../real_model.ts";

const CAPITAL = "Name the capital city of Italy.";

Deno.test("serve answers the official client with sensible text of the real model", async () => {
  const model = await realModelPath();
  await using server = new RunningCli(["serve", "--model", model, "--port", "0", "--log-level", "warn"]);
  const [, url] = await server.match(/Listening on (http:\S+)/);
  await server.match(/Ready in/);
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
  const name = (await client.models.list()).data[0].id;

  const stream = await client.chat.completions.create({
    model: name,
    messages: [{ role: "user", content: CAPITAL }],
    max_tokens: 32,
    temperature: 0,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let reason: string | null | undefined;
  let tokens = 0;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    reason = chunk.choices[0]?.finish_reason ?? reason;
    tokens = chunk.usage?.completion_tokens ?? tokens;
  }
  assertStringIncludes(text, "Rome");
  assertEquals(reason, "stop");

  const whole = await client.chat.completions.create({
    model: name,
    messages: [{ role: "user", content: CAPITAL }],
    max_tokens: 32,
    temperature: 0,
  });
  assertEquals(whole.choices[0].message.content, text);
  assertEquals(whole.usage?.completion_tokens, tokens);

  const completion = await client.completions.create({
    model: name,
    prompt: "The capital of Italy is",
    max_tokens: 2,
    temperature: 0,
  });
  assertStringIncludes(completion.choices[0].text, "Rome");
});

Deno.test("run chats in a terminal with the real model", async () => {
  const model = await realModelPath();
  const { status, output } = await runCli(["run", "--model", model, "--temperature", "0"], {
    input: `${CAPITAL}\n/exit\n`,
  });
  assertEquals(status, 0);
  assertStringIncludes(output, "Rome");
});
