import { assert, assertEquals, assertThrows } from "@std/assert";
import { DeviceLostError } from "../../runtime/device/device_lost_error.ts";
import type { EngineRequest } from "../../runtime/engine/request.ts";
import { openSynthetic } from "../conformance/open_synthetic.ts";
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
