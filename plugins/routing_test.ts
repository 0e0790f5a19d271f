import { assertEquals, assertStringIncludes } from "@std/assert";
import * as fc from "fast-check";
import { SeededRandom, ViewFuzzer } from "./fuzz.ts";
import { routeOrder } from "./routing.ts";
import { clusterOf } from "./test_cluster_view.ts";
import { hostOf } from "./test_views.ts";
import type { RequestView, SchedulerPlugin } from "./types.ts";

const request: RequestView = { id: "r", promptTokens: 250, maxTokens: 1000, priority: 0, tenant: "" };

Deno.test("routeOrder() takes the least loaded for its size, then the asked member, then the view's order", () => {
  const cluster = clusterOf([
    { running: 4, maxBatch: 8 },
    { running: 5, maxBatch: 20 },
    { running: 1, waiting: 1, maxBatch: 4 },
    { running: 2, maxBatch: 8 },
  ], { self: 3 });
  assertEquals(routeOrder(request, cluster, [0, 1, 2, 3]), [3, 1, 0, 2]);
});

Deno.test("routeOrder() puts members with room for the prompt and its first token before less loaded ones", () => {
  // 251 tokens are 3 segments.
  const cluster = clusterOf([{ total: 10, own: 6, lent: 2 }, { total: 10, own: 5, lent: 2, running: 7 }]);
  assertEquals(routeOrder(request, cluster, [0, 1]), [1, 0]);
  assertEquals(routeOrder({ ...request, promptTokens: 199 }, cluster, [0, 1]), [0, 1]);
});

Deno.test("SchedulerHost.route() answers with all candidates and nothing else", async () => {
  const { host } = await hostOf({
    score: (_state, _request, { members }, out) => out.set(members.name.map((_, i) => -i)),
  });
  using _ = host;
  fc.assert(fc.property(fc.integer(), fc.func(fc.boolean()), (seed, keep) => {
    const fuzzer = new ViewFuzzer(new SeededRandom(seed));
    const cluster = fuzzer.cluster();
    const candidates = [...cluster.members.name.keys()].filter((i) => keep(i));
    assertEquals(host.route(fuzzer.request(), cluster, candidates), candidates.toReversed());
    assertEquals(routeOrder(fuzzer.request(), cluster, candidates).toSorted((a, b) => a - b), candidates);
  }));
  assertEquals(host.fallbacks.score, 0);
});

Deno.test("SchedulerHost.route() does not look at scores of members that are no candidates, and breaks ties by load", async () => {
  const { host } = await hostOf({
    score(_state, _request, _cluster, out) {
      out[1] = out[2] = 7;
      out[3] = -1;
    },
  });
  using _ = host;
  const cluster = clusterOf([{}, { running: 3 }, { running: 2 }, { running: 8 }]);
  assertEquals(host.route(request, cluster, [1, 2, 3]), [3, 2, 1]);
  assertEquals(host.fallbacks.score, 0);
});

Deno.test("SchedulerHost.route() uses the default order when scores are missing, not finite, detached or late", async () => {
  const faults: readonly (readonly [string, NonNullable<SchedulerPlugin["score"]>])[] = [
    ["wanted a finite score for member m1, got NaN", (_state, _request, _cluster, out) => {
      out[0] = 1;
    }],
    ["got Infinity", (_state, _request, _cluster, out) => out.fill(Infinity)],
    ["wanted 2, got an array of 0", (_state, _request, _cluster, out) => {
      structuredClone(out, { transfer: [out.buffer as ArrayBuffer] });
    }],
    ["Cannot use a promise", (_state, _request, _cluster, out) => {
      out.fill(0);
      return Promise.resolve() as never;
    }],
    ["Error: mine", () => {
      throw new Error("mine");
    }],
  ];
  for (const [reason, score] of faults) {
    const { host, lines } = await hostOf({ score });
    using _ = host;
    assertEquals(host.route(request, clusterOf([{ running: 1 }, {}]), [0, 1]), [1, 0], reason);
    assertEquals(host.fallbacks, { admit: 0, rank: 0, plan: 0, score: 1, observe: 0 });
    assertStringIncludes(lines[0], reason);
  }
});

Deno.test("SchedulerHost.route() gives policies copies that they may spoil", async () => {
  const { host } = await hostOf({
    score(_state, _request, { members, sequences }, out) {
      members.running.fill(99);
      sequences.segmentsOn.fill(99);
      out.fill(0);
    },
  });
  using _ = host;
  const cluster = clusterOf([{ running: 1 }, {}], { sequences: [{ home: 0, on: [2, 1] }] });
  const before = structuredClone(cluster);
  host.route(request, cluster, [0, 1]);
  assertEquals(cluster, before);
});
