import { assertEquals, assertGreater, assertLess } from "@std/assert";
import { openSynthetic } from "../conformance/open_synthetic.ts";
import { LocalCluster } from "./local_cluster.ts";

Deno.test("AttentionClient.run() asks a holder that answers at once for a layer in few messages", async () => {
  using model = openSynthetic({ layers: 2, heads: 16, kvHeads: 2, headDim: 64, contextLength: 4096 });
  using cluster = await LocalCluster.open({
    members: [{ name: "a", kvTokens: 1024 }, { name: "h", role: "holder", kvTokens: 3072 }],
    model,
    maxModelLen: 4096,
  });
  // A layer of a chunk would be some twenty messages of the first size.
  const prompt = Array.from({ length: 3000 }, (_, i) => i * 7 % 250);
  const live = cluster.submit("a", { id: "long", prompt, maxTokens: 4 });
  cluster.wait(() => live.ended);
  assertEquals(live.tokens, 4);
  const layers = cluster.count("remote_layers");
  assertGreater(layers, 0);
  assertLess(cluster.count("attention_served"), 2 * layers);
  cluster.rest();
});
