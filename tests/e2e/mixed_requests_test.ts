import { assert, assertEquals } from "@std/assert";
import { startSynthetic } from "./start_synthetic.ts";

const REQUESTS = 64;

/** How a client's request went. */
type Outcome = "finished" | "cancelled" | `refused ${number}`;

interface Reply {
  readonly error?: { readonly message: string; readonly code: string | null };
  readonly choices?: readonly { readonly finish_reason: string | null }[];
  readonly usage?: { readonly completion_tokens: number };
}

async function post(url: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  return await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
}

/** Reads a stream to its end; counts the ends of choices and of the stream. */
async function readStream(response: Response, onChunk?: (count: number) => void): Promise<void> {
  let text = "";
  let chunks = 0;
  for await (const part of response.body!.pipeThrough(new TextDecoderStream())) {
    text += part;
    onChunk?.(++chunks);
  }
  const events = text.split("\n\n").filter((event) => event.startsWith("data: ")).map((event) => event.slice(6));
  assertEquals(events.filter((event) => event === "[DONE]").length, 1);
  assertEquals(events.at(-1), "[DONE]");
  const replies = events.slice(0, -1).map((event) => JSON.parse(event) as Reply);
  const ends = replies.flatMap((reply) => reply.choices ?? []).filter((choice) => choice.finish_reason !== null);
  assertEquals(ends.length, 1);
}

async function run(url: string, index: number): Promise<Outcome> {
  const messages = [{ role: "user", content: `request ${index} `.repeat(1 + index % 7) }];
  const base = {
    messages,
    max_tokens: 8 + index % 40,
    seed: index,
    temperature: index % 3 === 0 ? 0 : 1,
    ignore_eos: true,
  };
  switch (index % 5) {
    case 0: {
      const response = await post(url, base);
      const reply = await response.json() as Reply;
      assertEquals(response.status, 200, JSON.stringify(reply));
      assertEquals(reply.usage?.completion_tokens, base.max_tokens);
      return "finished";
    }
    case 1: {
      const response = await post(url, { ...base, stream: true });
      assertEquals(response.status, 200);
      await readStream(response);
      return "finished";
    }
    case 2: {
      const abort = new AbortController();
      const response = await post(url, { ...base, max_tokens: 400, stream: true }, abort.signal);
      try {
        await readStream(response, (chunks) => chunks >= 2 && abort.abort());
      } catch (error) {
        assert(abort.signal.aborted, String(error));
        return "cancelled";
      }
      return "finished";
    }
    case 3: {
      const response = await post(url, { ...base, messages: [{ role: "user", content: "too long ".repeat(2000) }] });
      const reply = await response.json() as Reply;
      assertEquals(reply.error?.code, "context_length_exceeded");
      return `refused ${response.status}`;
    }
    default: {
      const response = await post(url, { ...base, temperature: "hot" });
      const reply = await response.json() as Reply;
      assert(reply.error?.message.includes("temperature"), JSON.stringify(reply));
      return `refused ${response.status}`;
    }
  }
}

Deno.test("The server ends each of 64 concurrent mixed requests once and gives every block back", async () => {
  // Too few blocks for all at once, so that requests wait and are preempted.
  await using parts = await startSynthetic({ kvTokens: 1024, maxBatch: 16 });
  const { server, engine } = parts;
  const outcomes = await Promise.all(Array.from({ length: REQUESTS }, (_, i) => run(server.url, i)));
  const count = (outcome: Outcome) => outcomes.filter((o) => o === outcome).length;
  assertEquals(count("refused 400"), 25);
  const cancelled = count("cancelled");
  assertEquals(count("finished"), 39 - cancelled);

  // Cancelled requests are noticed at the next step.
  const deadline = performance.now() + 5000;
  let stats = await engine.stats();
  while ((stats.running > 0 || stats.waiting > 0) && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    stats = await engine.stats();
  }
  const { total, free, owned, cached } = stats.blocks;
  assertEquals(owned, 0);
  assertEquals(free + cached, total);

  const metrics = await (await fetch(`${server.url}/metrics`)).text();
  const value = (name: string) =>
    metrics.split("\n").filter((line) => line.startsWith(`infinite_llm:${name}`))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
  assertEquals(value("num_requests_running"), 0);
  assertEquals(value("num_requests_waiting"), 0);
  assertEquals(value("generation_tokens_total"), stats.generatedTokens);
  assertEquals(value("num_preemptions_total"), stats.preemptions);
  const success = metrics.split("\n").filter((line) => line.startsWith("infinite_llm:request_success_total"));
  const finished = success.filter((line) => line.includes('finished_reason="length"'))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
  assertEquals(finished, count("finished"), success.join("\n"));
});

Deno.test("The server answers the same with the same seed, alone and among others", async () => {
  await using parts = await startSynthetic({ kvTokens: 2048 });
  const { url } = parts.server;
  const body = {
    messages: [{ role: "user", content: "tell me something" }],
    max_tokens: 40,
    seed: 11,
    temperature: 1,
    logprobs: true,
    ignore_eos: true,
  };
  const ask = async () => (await (await post(url, body)).json()) as { choices: unknown };
  const alone = await ask();
  const crowd = Array.from({ length: 6 }, (_, i) => post(url, { ...body, seed: i }).then((r) => r.body?.cancel()));
  const among = await ask();
  await Promise.all(crowd);
  assertEquals(among.choices, alone.choices);
});
