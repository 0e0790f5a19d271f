import { assert, assertEquals } from "@std/assert";
import { Registry } from "prom-client";
import { CLUSTER_COUNTERS, ClusterMetrics } from "./cluster_metrics.ts";
import { FakeCluster, SAMPLE_REPORT } from "./fakes/cluster.ts";
import { FakeEngine } from "./fakes/engine.ts";
import { serve } from "./fakes/server.ts";

function lines(text: string): Map<string, number> {
  const values = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(values.map((line) => {
    const at = line.lastIndexOf(" ");
    return [line.slice(0, at), Number(line.slice(at + 1))];
  }));
}

Deno.test("ClusterMetrics.refresh() shows what a report says about its writer", async () => {
  const registry = new Registry();
  const metrics = new ClusterMetrics({ registry, prefix: "x" });
  // Twice: counters are taken over, not added up.
  metrics.refresh(SAMPLE_REPORT);
  metrics.refresh(SAMPLE_REPORT);
  const values = lines(await registry.metrics());
  const expected: Record<string, number> = {
    bytes_lent: 0,
    bytes_borrowed: 4096,
    reachable_model_len: 4096,
    epoch: 3,
    manager_reached: 1,
    performance_error: 0.07,
    'blocks{state="own"}': 14,
    'blocks{state="borrowed"}': 8,
    'members{state="alive"}': 2,
    'members{state="suspect"}': 1,
    'leases{side="granted"}': 0,
    'leases{side="held"}': 1,
    remote_attention_seconds_total: 1.5,
    remote_layer_waits_total: 60,
    remote_layer_wait_seconds_total: 0.75,
    moves_done_total: 2,
    moves_failed_total: 1,
    repairs_total: 3,
    repaired_tokens_total: 512,
    restarts_total: 0,
    'refusals_total{code="no_space"}': 4,
    'refusals_total{code="expired"}': 0,
    bytes_in_total: 1000,
    bytes_out_total: 2000,
  };
  for (const [name, value] of Object.entries(expected)) assertEquals(values.get(`x:cluster_${name}`), value, name);
  assert(![...values.keys()].some((name) => name.includes("something_else") || name.includes("no such code")));
});

Deno.test("ClusterMetrics.refresh() counts what lies at a lender", async () => {
  const registry = new Registry();
  const metrics = new ClusterMetrics({ registry, prefix: "x" });
  metrics.refresh({ ...SAMPLE_REPORT, from: "attic", manager: undefined });
  const values = lines(await registry.metrics());
  assertEquals(values.get("x:cluster_bytes_lent"), 4096);
  assertEquals(values.get("x:cluster_bytes_borrowed"), 0);
  assertEquals(values.get('x:cluster_leases{side="granted"}'), 1);
  assertEquals(values.get("x:cluster_manager_reached"), 0);
  assertEquals(values.get('x:cluster_blocks{state="quarantined"}'), 4);
});

Deno.test("CLUSTER_COUNTERS has every name once, and metrics that end as counters do", () => {
  const names = CLUSTER_COUNTERS.map(([name]) => name);
  assertEquals(new Set(names).size, names.length);
  for (const [name, metric, help] of CLUSTER_COUNTERS) {
    assertEquals(metric, `${name}_total`);
    assert(help.endsWith("."), help);
  }
});

Deno.test("GET /metrics has the cluster's metrics on a clustered instance only, also while it does not answer", async () => {
  const cluster = new FakeCluster();
  await using harness = await serve({ engine: new FakeEngine({ cluster }) });
  const read = async () => lines(await (await harness.fetch("/metrics")).text());
  assertEquals((await read()).get("infinite_llm:cluster_repairs_total"), 3);
  cluster.answer = () => Promise.reject(new Error("gone"));
  assertEquals((await read()).get("infinite_llm:cluster_repairs_total"), 3);
  await using alone = await serve();
  assert(!(await (await alone.fetch("/metrics")).text()).includes("cluster_"));
});
