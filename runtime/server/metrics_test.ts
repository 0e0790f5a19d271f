import { assertEquals, assertStringIncludes } from "@std/assert";
import { FakeEngine } from "./fakes/engine.ts";
import { serve } from "./fakes/server.ts";

/** Metrics by name and labels, `model_name` left out. */
async function scrape(fetchMetrics: () => Promise<Response>): Promise<Map<string, number>> {
  const response = await fetchMetrics();
  assertStringIncludes(response.headers.get("content-type") ?? "", "text/plain; version=0.0.4");
  const lines = (await response.text()).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(lines.map((line) => {
    const at = line.lastIndexOf(" ");
    const name = line.slice(0, at).replace(/,?model_name="[^"]*"/, "").replace("{,", "{").replace("{}", "");
    return [name, Number(line.slice(at + 1))];
  }));
}

Deno.test("GET /metrics has vLLM's names, the engine's counters and the process", async () => {
  await using harness = await serve();
  const metrics = await scrape(() => harness.fetch("/metrics"));
  const expected: Record<string, number> = {
    num_requests_running: 0,
    num_requests_waiting: 0,
    kv_cache_usage_perc: 0.2,
    num_preemptions_total: 1,
    prefix_cache_queries_total: 11,
    prefix_cache_hits_total: 4,
    engine_steps_total: 3,
    engine_prompt_tokens_total: 5,
    engine_step_seconds_total: 0.5,
    prompt_tokens_total: 0,
    generation_tokens_total: 7,
    'kv_blocks{state="free"}': 7,
    'kv_blocks{state="owned"}': 2,
    'kv_blocks{state="cached"}': 1,
    'policy_fallbacks_total{hook="plan"}': 2,
    'request_success_total{finished_reason="stop"}': 0,
    'request_success_total{finished_reason="abort"}': 0,
  };
  for (const [name, value] of Object.entries(expected)) assertEquals(metrics.get(`infinite_llm:${name}`), value, name);
  assertEquals((metrics.get("process_resident_memory_bytes") ?? 0) > 1e6, true);
});

Deno.test("GET /metrics counts what requests used and how long they took", async () => {
  await using harness = await serve({ metricsPrefix: "vllm" });
  for (const stream of [true, false]) {
    await (await harness.post("/v1/completions", { prompt: "abc", n: 2, stream })).text();
  }
  const metrics = await scrape(() => harness.fetch("/metrics"));
  const value = (name: string) => metrics.get(`vllm:${name}`);
  assertEquals(value('request_success_total{finished_reason="stop"}'), 2);
  assertEquals([value("prompt_tokens_total"), value("request_generation_tokens_sum")], [6, 20]);
  assertEquals(value("time_to_first_token_seconds_count"), 2);
  // Five tokens a choice are four gaps.
  assertEquals(value("inter_token_latency_seconds_count"), 16);
  for (
    const name of ["e2e_request_latency_seconds", "request_queue_time_seconds", "request_prefill_time_seconds"]
      .concat("request_decode_time_seconds", "request_inference_time_seconds")
  ) {
    assertEquals(value(`${name}_count`), 2, name);
  }
  assertEquals(value('request_prompt_tokens_bucket{le="2"}'), 0);
  assertEquals(value('request_prompt_tokens_bucket{le="5"}'), 2);
  assertEquals(value('request_generation_tokens_bucket{le="10"}'), 2);
  assertEquals(value('request_max_num_generation_tokens_bucket{le="5"}'), 2);
  assertEquals([value("request_params_n_sum"), value("request_params_max_tokens_sum")], [4, 32]);
});

Deno.test("GET /metrics has vLLM's bucket edges", async () => {
  await using harness = await serve({ engine: new FakeEngine({ info: { maxModelLen: 1000 } }) });
  await (await harness.post("/v1/completions", { prompt: "abc" })).text();
  const metrics = await scrape(() => harness.fetch("/metrics"));
  const edges = (name: string) =>
    [...metrics.keys()].flatMap((key) => {
      const match = new RegExp(`^infinite_llm:${name}_bucket\\{le="([^"]+)"`).exec(key) ??
        new RegExp(`^infinite_llm:${name}_bucket\\{.*le="([^"]+)"`).exec(key);
      return match ? [match[1]] : [];
    }).join(" ");
  assertEquals(
    edges("time_to_first_token_seconds"),
    "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10 20 40 80 160 640 2560 +Inf",
  );
  assertEquals(
    edges("inter_token_latency_seconds"),
    "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1 2.5 5 7.5 10 20 40 80 +Inf",
  );
  assertEquals(
    edges("e2e_request_latency_seconds"),
    "0.3 0.5 0.8 1 1.5 2 2.5 5 10 15 20 30 40 50 60 120 240 480 960 1920 7680 +Inf",
  );
  assertEquals(edges("request_prompt_tokens"), "1 2 5 10 20 50 100 200 500 1000 +Inf");
});

Deno.test("GET /metrics answers without the engine when it does not answer, and refuses other types", async () => {
  const engine = new FakeEngine();
  engine.stats = () => Promise.reject(new Error("gone"));
  await using harness = await serve({ engine });
  const metrics = await scrape(() => harness.fetch("/metrics"));
  assertEquals(metrics.has("process_heap_bytes"), true);
  const refused = await harness.fetch("/metrics", { headers: { accept: "application/json" } });
  assertEquals([refused.status, (await refused.json()).error.code], [406, "not_acceptable"]);
});
