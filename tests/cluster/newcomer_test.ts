import { assertEquals, assertGreaterOrEqual } from "@std/assert";
import type { EngineRequest } from "../../runtime/engine/request.ts";
import { openSynthetic } from "../conformance/open_synthetic.ts";
import { LocalCluster } from "./local_cluster.ts";

const CONTEXT = 4096;

function request(id: string, tokens: number): EngineRequest {
  const prompt = Array.from({ length: tokens }, (_, i) => (i * i * 7 + tokens + i) % 250);
  return { id, prompt, maxTokens: 4, sampling: { temperature: 0, ignoreEos: true } };
}

Deno.test("A long prompt waits for a newcomer that pauses between two grants, and is not refused", async () => {
  using model = openSynthetic({ layers: 1, heads: 2, kvHeads: 1, intermediate: 96, contextLength: CONTEXT });
  using cluster = await LocalCluster.open({
    members: [{ name: "a", kvTokens: 512 }, { name: "h", role: "holder", kvTokens: 2048 }],
    model,
    maxModelLen: CONTEXT,
  });
  const lendable = () => cluster.report("a").members.find(({ id }) => id === "h")?.blocks.lendable;
  // All that the holder has: it pauses for seconds.
  const first = cluster.submit("a", request("first", 2400));
  cluster.wait(() => first.ended || lendable() === 0);
  assertEquals([first.ended, lendable()], [false, 0]);
  // What it holds back for the moment counts all the same: the length that is told does not drop.
  assertGreaterOrEqual(cluster.report("a").reachableModelLen, 2560);
  cluster.wait(() => first.ended);
  // Long enough for everybody to have heard of it, short beside the pause.
  let turns = 0;
  cluster.wait(() => turns++ === 500);
  assertEquals([lendable(), cluster.report("a").reachableModelLen], [0, 2560]);
  const second = cluster.submit("a", request("second", 2400));
  cluster.wait(() => second.ended);
  for (const { events } of [first, second]) {
    const end = events.find((event) => event.kind === "end");
    assertEquals([end?.error, end?.usage.completionTokens], [undefined, 4]);
  }
  cluster.rest();
});
