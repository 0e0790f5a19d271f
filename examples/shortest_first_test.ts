import { assertEquals } from "@std/assert";
import { checkPlugin } from "../plugins/check.ts";
import { testSchedulerPolicy } from "../plugins/conformance.ts";
import { SchedulerHost } from "../plugins/host.ts";
import { queueOf } from "../plugins/test_views.ts";
import shortestFirst from "./shortest_first.ts";

testSchedulerPolicy({ plugin: shortestFirst });
testSchedulerPolicy({
  plugin: { ...shortestFirst, name: "shortest-first-strict" },
  config: { agingTokensPerSecond: 0, busyTokens: 1 },
});

Deno.test("shortestFirst.rank() puts the shorter job first unless the longer one is old", async () => {
  using host = await SchedulerHost.load(new URL("./shortest_first.ts", import.meta.url).href, {
    now: () => 10_000,
    random: () => 0,
    log: () => {},
  });
  const short = { id: 2, pending: 500, arrivedMs: 9_000 };
  // 9 s more are worth 450 tokens.
  assertEquals([...host.rank(queueOf({ id: 1, pending: 1000, arrivedMs: 0 }, short))], [1, 0]);
  assertEquals([...host.rank(queueOf({ id: 1, pending: 900, arrivedMs: 0 }, short))], [0, 1]);
});

Deno.test("shortestFirst.admit() turns long requests away only while others wait", async () => {
  using host = await SchedulerHost.open(shortestFirst, {
    config: { busyTokens: 100 },
    now: () => 0,
    random: () => 0,
    log: () => {},
  });
  const request = { id: "r", promptTokens: 95, maxTokens: 10, priority: 0, tenant: "" };
  const instance = { waiting: 0, running: 3, totalBlocks: 9, availableBlocks: 1, blockTokens: 16 };
  assertEquals(host.admit(request, instance).kind, "accept");
  assertEquals(host.admit(request, { ...instance, waiting: 2 }), {
    kind: "reject",
    status: 429,
    reason: "105 tokens are too many while 2 wait",
  });
  assertEquals(host.admit({ ...request, promptTokens: 90 }, { ...instance, waiting: 2 }).kind, "accept");
});

Deno.test("checkPlugin() finds nothing wrong with the example", async () => {
  const report = await checkPlugin("./shortest_first.ts", { directory: import.meta.dirname });
  assertEquals(report.checks.filter(({ ok }) => !ok), []);
  assertEquals(report.plugin?.name, "shortest-first");
});
