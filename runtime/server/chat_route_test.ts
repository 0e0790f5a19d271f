import { assertEquals } from "@std/assert";
import { serve } from "./fakes/server.ts";

Deno.test("answerChat() answers with the engine's text and usage", async () => {
  await using harness = await serve();
  const response = await harness.post("/v1/chat/completions", { messages: [{ role: "user", content: "hi" }] });
  const body = await response.json();
  assertEquals(body.choices[0].message, { role: "assistant", content: "Hello" });
});
