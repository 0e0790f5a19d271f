import { assertEquals } from "@std/assert";
import { memoryConformance } from "../conformance.ts";
import { MemoryHost } from "../memory_host.ts";
import { clusterOf } from "../test_cluster_view.ts";
import { localOnly } from "./local_only.ts";

memoryConformance({ plugin: localOnly });

Deno.test("localOnly places and moves nothing, where the default policy would", async () => {
  using host = await MemoryHost.open(localOnly, { now: () => 0, random: () => 0, log: () => {} });
  const members = [{ total: 100, own: 100, running: 1, waiting: 9 }, { holder: true }];
  const cluster = clusterOf(members, { sequences: [{ home: 0, on: [100] }] });
  assertEquals(host.place({ segments: 1, tokens: 1, maxTokens: 2, localSegments: 0 }, cluster), []);
  assertEquals(host.move({ ...cluster, self: -1 }), []);
  assertEquals(host.fallbacks, { place: 0, move: 0, evict: 0 });
});
