import { assertEquals } from "@std/assert";
import { checkPlugin } from "../plugins/check.ts";
import { memoryConformance } from "../plugins/conformance.ts";
import { MemoryHost } from "../plugins/memory_host.ts";
import { clusterOf } from "../plugins/test_cluster_view.ts";
import sameRack from "./same_rack.ts";

memoryConformance({ plugin: sameRack });

/** Where so many segments go that a member of rack r1 wants: 20 and 30 are lent in its rack, 50 elsewhere. */
async function placed(segments: number, config?: { readonly awaySegments: number }): Promise<readonly string[]> {
  using host = await MemoryHost.open(sameRack, { config, now: () => 0, random: () => 0, log: () => {} });
  const view = clusterOf([{}, { total: 50 }, { total: 20 }, { total: 30 }, { total: 70, usable: false }]);
  const name = ["r1.a", "r2.b", "r1.c", "r1.d", "r1.e"];
  const request = { segments, tokens: 10_000, maxTokens: 20_000, localSegments: 3 };
  const answer = host.place(request, { ...view, members: { ...view.members, name } });
  assertEquals(host.fallbacks.place, 0);
  return answer.map(({ member, segments }) => `${name[member]} ${segments}`);
}

Deno.test("sameRack.place() fills the own rack first, the largest offer before the others", async () => {
  assertEquals(await placed(25), ["r1.d 25"]);
  assertEquals(await placed(45), ["r1.d 30", "r1.c 15"]);
});

Deno.test("sameRack.place() borrows elsewhere up to its limit, else nothing", async () => {
  assertEquals(await placed(66), ["r1.d 30", "r1.c 20", "r2.b 16"]);
  assertEquals(await placed(67), []);
  assertEquals(await placed(67, { awaySegments: 50 }), ["r1.d 30", "r1.c 20", "r2.b 17"]);
});

Deno.test("checkPlugin() finds nothing wrong with the memory example", async () => {
  const report = await checkPlugin("./same_rack.ts", { directory: import.meta.dirname });
  assertEquals(report.checks.filter(({ ok }) => !ok), []);
  assertEquals([report.plugin?.kind, report.plugin?.name], ["memory", "same-rack"]);
});
