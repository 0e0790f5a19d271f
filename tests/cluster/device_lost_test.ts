import { assert, assertEquals, assertThrows } from "@std/assert";
import { DeviceLostError } from "../../runtime/device/device_lost_error.ts";
import type { EngineRequest, RequestEvent } from "../../runtime/engine/request.ts";
import { testVocabulary } from "../../runtime/engine/test_device.ts";
import { connectEngine } from "../../runtime/engine/worker_engine.ts";
import { openSynthetic } from "../conformance/open_synthetic.ts";
import { buildSyntheticGguf } from "../synthetic/synthetic_gguf.ts";
import { LocalCluster, type LocalRequest } from "./local_cluster.ts";

const CONTEXT = 1024;

function request(id: string): EngineRequest {
  const prompt = Array.from({ length: 90 }, (_, i) => (i * i * 7 + id.charCodeAt(0) + i) % 250);
  return { id, prompt, maxTokens: 60, sampling: { temperature: 0, ignoreEos: true } };
}

function idsOf({ events }: LocalRequest): number[] {
  return events.flatMap((event) => event.kind === "token" ? event.ids : []);
}

Deno.test("Requests of a home whose device is lost run on elsewhere, and each ends once", async () => {
  using model = openSynthetic({ layers: 1, heads: 2, kvHeads: 1, intermediate: 96, contextLength: CONTEXT });
  const ids = ["a", "b", "c", "d"];
  const device = { lost: false };
  const members = [
    { name: "front", kvTokens: 256 },
    {
      name: "home",
      kvTokens: 2048,
      beforeStep: () => {
        if (device.lost) throw new DeviceLostError(new Error("a kernel went astray"));
      },
    },
  ] as const;
  const run = async (harm: (cluster: LocalCluster, all: readonly LocalRequest[]) => void) => {
    using cluster = await LocalCluster.open({ members, model, maxModelLen: CONTEXT });
    const all = ids.map((id) => cluster.submit("front", request(id)));
    cluster.wait(() => all.every(({ tokens }) => tokens >= 5));
    assert(cluster.count("requests_forwarded") > 0, "nothing runs at the home");
    harm(cluster, all);
    cluster.wait(() => all.every(({ ended }) => ended));
    const ends = all.flatMap(({ events }) => events.filter(({ kind }) => kind === "end"));
    assertEquals(ends.map((end) => end.kind === "end" && end.error), ids.map(() => undefined));
    cluster.rest();
    return { tokens: all.map(idsOf), restarts: cluster.count("restarts") };
  };
  const whole = await run(() => {});
  const harmed = await run((cluster, all) => {
    device.lost = true;
    // Its process ends with the error, as serve does.
    assertThrows(() => cluster.wait(() => all.every(({ ended }) => ended)), DeviceLostError, "went astray");
    cluster.kill("home");
  });
  assertEquals(harmed.tokens, whole.tokens);
  assertEquals([whole.restarts, harmed.restarts > 0], [0, true]);
});

Deno.test("An engine of a cluster says that its device is lost, and ends its requests once, as one alone does", async () => {
  const directory = Deno.makeTempDirSync();
  try {
    const modelPath = `${directory}/tiny.gguf`;
    Deno.writeFileSync(modelPath, buildSyntheticGguf({ contextLength: CONTEXT }));
    const worker = new Worker(new URL("./losing_worker.ts", import.meta.url), { type: "module" });
    const device = { kind: "wasm", threads: 1 } as const;
    await using engine = await connectEngine(worker, {
      options: { modelPath, device, kvTokens: CONTEXT, cluster: {} },
      text: { vocabulary: testVocabulary(), eos: [] },
    });
    const ends = await Promise.all(["a", "b"].map(async (id) => {
      const all: RequestEvent[] = [];
      for await (const event of engine.generate({ ...request(id), prompt: [1, 2, 3] })) all.push(event);
      return all.filter(({ kind }) => kind === "end");
    }));
    for (const end of ends) {
      assertEquals(end.length, 1);
      assert(end[0].kind === "end" && end[0].error?.message.includes("a kernel went astray"));
    }
    assertEquals((await engine.deviceLost)?.name, "DeviceLostError");
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});
