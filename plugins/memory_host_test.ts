import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import type { MemoryPolicyHost } from "../scheduler/memory_policy.ts";
import { PluginError } from "./error.ts";
import { BUILTIN_MEMORY_POLICIES } from "./load.ts";
import { MemoryHost } from "./memory_host.ts";
import type { PolicyHostOptions } from "./policy_guard.ts";
import { clusterOf } from "./test_cluster_view.ts";
import type { EvictionView, MemoryPlugin, PlacementView } from "./types.ts";

async function hostOf(hooks: Partial<MemoryPlugin>, options: Partial<PolicyHostOptions> = {}) {
  const lines: string[] = [];
  const clock = { ms: 0 };
  const host = await MemoryHost.open(
    { api: 1, kind: "memory", name: "mine", version: "1.0.0", create: () => ({}), ...hooks },
    { now: () => clock.ms, random: () => 0.5, log: (line) => lines.push(line), ...options },
  );
  return { host, lines, clock };
}

const request: PlacementView = { segments: 10, tokens: 1200, maxTokens: 2000, localSegments: 2 };

/** Member 3 is not usable, member 4 a holder; sequence 1 is pinned. */
function cluster() {
  return clusterOf([
    { own: 20, running: 2 },
    { own: 40, running: 1 },
    { own: 5, lendable: 8 },
    { usable: false },
    { holder: true, total: 20, lent: 4 },
  ], {
    sequences: [{ home: 0, on: [12, 0, 0, 1, 4] }, { home: 0, on: [8], pinned: true }, { home: 1, on: [0, 40] }],
  });
}

function eviction(): EvictionView {
  return {
    segments: 2,
    length: 3,
    tokens: Int32Array.of(100, 50, 70),
    segment: Int32Array.of(0, 1, 2),
    shared: Int32Array.of(1, 1, 1),
    ageMs: Float64Array.of(1, 2, 3),
  };
}

Deno.test("MemoryHost is a MemoryPolicyHost and passes sound answers on", async () => {
  const { host } = await hostOf({
    place(_state, _request, _cluster, out) {
      out.put(4, 4);
      out.put(1, 6);
    },
    move(_state, _cluster, out) {
      out.move(0, { from: 0, to: 4, segments: 5, predictedGain: 3 });
      out.move(0, { from: 0, to: 1, segments: 7 });
      out.move(2, { from: 1, to: 0, segments: 40, predictedGain: -1 });
    },
    evict: (_state, view, out) => out.set(view.tokens),
  });
  using _ = host;
  const door: MemoryPolicyHost = host;
  assertEquals(door.place(request, cluster()), [{ member: 4, segments: 4 }, { member: 1, segments: 6 }]);
  assertEquals(door.move(cluster()), [
    { sequence: 0, from: 0, to: 4, segments: 5, predictedGain: 3 },
    { sequence: 0, from: 0, to: 1, segments: 7 },
    { sequence: 2, from: 1, to: 0, segments: 40, predictedGain: -1 },
  ]);
  assertEquals(door.evict(eviction()), [1, 2]);
  assertEquals(door.fallbacks, { place: 0, move: 0, evict: 0 });
});

Deno.test("MemoryHost lets a policy place nothing, and asks none about nothing", async () => {
  const { host } = await hostOf({
    place() {},
    evict() {
      throw new Error("mine");
    },
  });
  using _ = host;
  assertEquals(host.place(request, cluster()), []);
  assertEquals(host.place({ ...request, segments: 0 }, cluster()), []);
  assertEquals(host.evict({ ...eviction(), segments: 0 }), []);
  assertEquals(host.evict({ ...eviction(), length: 0 }), []);
  assertEquals(host.fallbacks, { place: 0, move: 0, evict: 0 });
});

Deno.test("MemoryHost.place() refuses placements that break a rule, says which, and lets the built-in place", async () => {
  const faults: readonly (readonly [string, NonNullable<MemoryPlugin["place"]>])[] = [
    ["member 5: it is not in the view", (_state, _request, _cluster, out) => out.put(5, 10)],
    ["member -1: it is not in the view", (_state, _request, _cluster, out) => out.put(-1, 10)],
    ["member 1.5: it is not in the view", (_state, _request, _cluster, out) => out.put(1.5, 10)],
    ["member length: it is not in the view", (_state, _request, _cluster, out) => out.put("length" as never, 10)],
    ["m3: it is not usable", (_state, _request, _cluster, out) => out.put(3, 10)],
    ["m0: it is the one that wants to borrow", (_state, _request, _cluster, out) => out.put(0, 10)],
    ["wanted 1 to 8 segments (as many it would lend), got 9", (_state, _request, _cluster, out) => out.put(2, 9)],
    ["got 0", (_state, _request, _cluster, out) => out.put(1, 0)],
    ["got -3", (_state, _request, _cluster, out) => out.put(1, -3)],
    ["got NaN", (_state, _request, _cluster, out) => out.put(1, NaN)],
    ["got 2.5", (_state, _request, _cluster, out) => out.put(1, 2.5)],
    ["got 10", (_state, _request, _cluster, out) => out.put(1, "10" as never)],
    ["m1: it has its share already", (_state, _request, _cluster, out) => {
      out.put(1, 5);
      out.put(1, 5);
    }],
    ["wanted 10 segments or none, got 9", (_state, _request, _cluster, out) => out.put(1, 9)],
    ["wanted 10 segments or none, got 11", (_state, _request, _cluster, out) => out.put(1, 11)],
    ["m3: it is not usable", (_state, _request, _cluster, out) => {
      try {
        out.put(3, 10);
      } catch {
        out.put(1, 10);
      }
    }],
    ["Cannot use a promise", (_state, _request, _cluster, out) => {
      out.put(1, 10);
      return Promise.reject(new Error("late")) as never;
    }],
    ["Error: mine", () => {
      throw new Error("mine");
    }],
  ];
  for (const [reason, place] of faults) {
    const { host, lines } = await hostOf({ place });
    using _ = host;
    assertEquals(host.place(request, cluster()), [{ member: 4, segments: 10 }], reason);
    assertEquals(host.fallbacks, { place: 1, move: 0, evict: 0 });
    assertStringIncludes(lines[0], reason);
  }
});

Deno.test("MemoryHost.move() refuses moves that break a rule and says which", async () => {
  const one = (sequence: number, from: number, to: number, segments: number): NonNullable<MemoryPlugin["move"]> => {
    return (_state, _cluster, out) => out.move(sequence, { from, to, segments });
  };
  const faults: readonly (readonly [string, NonNullable<MemoryPlugin["move"]>])[] = [
    ["sequence 3: it is not in the view", one(3, 0, 1, 1)],
    ["sequence NaN: it is not in the view", one(NaN, 0, 1, 1)],
    ["member 9: it is not in the view", one(0, 9, 1, 1)],
    ["member -1: it is not in the view", one(0, 0, -1, 1)],
    ["it is pinned", one(1, 0, 1, 1)],
    ["wanted two members", one(0, 0, 0, 1)],
    ["the taker is not usable", one(0, 0, 3, 1)],
    ["wanted 1 to 12 segments (as many lie there), got 13", one(0, 0, 1, 13)],
    ["wanted 1 to 0 segments (as many lie there), got 1", one(0, 1, 2, 1)],
    ["wanted 1 to 8 segments (as many it would lend), got 9", one(0, 0, 2, 9)],
    ["got 0", one(0, 0, 1, 0)],
    ["got -1", one(0, 0, 1, -1)],
    ["got NaN", one(0, 0, 1, NaN)],
    ["got 0.5", one(0, 0, 1, 0.5)],
    [
      "wanted a finite gain, got Infinity",
      (_state, _cluster, out) => out.move(0, { from: 0, to: 1, segments: 1, predictedGain: Infinity }),
    ],
    ["it is moved there already", (_state, _cluster, out) => {
      out.move(0, { from: 0, to: 1, segments: 1 });
      out.move(0, { from: 0, to: 1, segments: 1 });
    }],
    ["another of its moves goes the other way", (_state, _cluster, out) => {
      out.move(0, { from: 0, to: 4, segments: 1 });
      out.move(0, { from: 4, to: 0, segments: 1 });
    }],
    ["another of its moves goes the other way", (_state, _cluster, out) => {
      out.move(0, { from: 4, to: 1, segments: 1 });
      out.move(0, { from: 0, to: 4, segments: 1 });
    }],
    ["wanted 1 to 2 segments (as many lie there), got 3", (_state, _cluster, out) => {
      out.move(0, { from: 0, to: 1, segments: 10 });
      out.move(0, { from: 0, to: 4, segments: 3 });
    }],
    ["wanted 1 to 0 segments (as many it would lend), got 1", (_state, _cluster, out) => {
      out.move(0, { from: 0, to: 2, segments: 8 });
      out.move(2, { from: 1, to: 2, segments: 1 });
    }],
    ["Cannot use a promise", () => Promise.resolve() as never],
    ["TypeError", (_state, _cluster, out) => out.move(0, undefined as never)],
  ];
  for (const [reason, move] of faults) {
    const { host, lines } = await hostOf({ move });
    using _ = host;
    assertEquals(host.move({ ...cluster(), self: -1 }), [], reason);
    assertEquals(host.fallbacks, { place: 0, move: 1, evict: 0 });
    assertStringIncludes(lines[0], reason);
  }
});

Deno.test("MemoryHost.move() brings segments home into free memory only, and none to a holder as home", async () => {
  const members = [{ total: 30, own: 20, lent: 8, lendable: 0 }, { holder: true, lent: 9 }];
  const counts = async (segments: number, home = 0) => {
    const { host, lines } = await hostOf({
      move: (_state, _cluster, out) => out.move(0, { from: 1 - home, to: home, segments }),
    });
    using _ = host;
    const moves = host.move(clusterOf(members, { sequences: [{ home, on: [4, 4] }], self: -1 }));
    return [moves.length, lines.length > 0 ? lines[0].split(": ").slice(-1)[0] : ""];
  };
  assertEquals(await counts(2), [1, ""]);
  assertEquals(await counts(3), [0, "wanted 1 to 2 segments (as many are free), got 3"]);
  assertEquals(await counts(1, 1), [0, "its home runs no requests"]);
});

Deno.test("MemoryHost.evict() refuses numbers that are missing, not finite or detached", async () => {
  const faults: readonly (readonly [string, NonNullable<MemoryPlugin["evict"]>])[] = [
    ["wanted a finite number for candidate 1, got NaN", (_state, _view, out) => {
      out[0] = 1;
    }],
    ["got Infinity", (_state, _view, out) => out.fill(Infinity)],
    ["wanted 3 numbers, got an array of 0", (_state, _view, out) => {
      structuredClone(out, { transfer: [out.buffer as ArrayBuffer] });
    }],
  ];
  for (const [reason, evict] of faults) {
    const { host, lines } = await hostOf({ evict });
    using _ = host;
    // The built-in gives up the shorter sequences.
    assertEquals(host.evict(eviction()), [1, 2], reason);
    assertEquals(host.fallbacks.evict, 1);
    assertStringIncludes(lines[0], reason);
  }
});

Deno.test("MemoryHost lets the built-in answer for hooks that a policy lacks, uncounted", async () => {
  const { host } = await hostOf({});
  using _ = host;
  const debtor = { own: 100, running: 1, waiting: 20, maxBatch: 9 };
  const view = clusterOf([debtor, { holder: true }], { sequences: [{ home: 0, on: [100] }], self: -1 });
  assertEquals(host.place(request, cluster()), [{ member: 4, segments: 10 }]);
  assertEquals(host.move(view).length, 1);
  assertEquals(host.evict(eviction()), [1, 2]);
  assertEquals(host.fallbacks, { place: 0, move: 0, evict: 0 });
});

Deno.test("MemoryHost answers with nothing where a view is so odd that the built-in fails too", async () => {
  const { host } = await hostOf({});
  using _ = host;
  const odd = clusterOf([{}, {}]);
  Object.defineProperty(odd, "sequences", { value: undefined });
  assertEquals([host.place(request, odd), host.move(odd)], [[], []]);
  const candidates = eviction();
  Object.defineProperty(candidates, "shared", { value: undefined });
  assertEquals(host.evict(candidates), [0, 1]);
});

Deno.test("MemoryHost gives policies copies that they may spoil, and closes a draft when its call is over", async () => {
  const spoil = (view: object) => {
    for (const [key, value] of Object.entries(view)) {
      if (ArrayBuffer.isView(value)) (value as Int32Array).fill(1);
      else if (typeof value === "object") spoil(value);
      else Reflect.set(view, key, 77);
    }
  };
  let kept: { put(member: number, segments: number): void } | undefined;
  const { host } = await hostOf({
    place(_state, seen, view, out) {
      kept = out;
      spoil(seen);
      spoil(view);
      out.put(1, 10);
    },
    move(_state, view, out) {
      spoil(view);
      out.move(1, { from: 0, to: 3, segments: 1 });
    },
    evict(_state, view, out) {
      out.set(view.tokens);
      spoil(view);
    },
  });
  using _ = host;
  const views = { request: { ...request }, cluster: cluster(), eviction: eviction() };
  const before = structuredClone(views);
  assertEquals(host.place(views.request, views.cluster), [{ member: 1, segments: 10 }]);
  host.move(views.cluster);
  assertEquals(host.evict(views.eviction), [1, 2]);
  assertEquals(views, before);
  assertEquals(host.fallbacks, { place: 0, move: 1, evict: 0 });
  assertThrows(() => kept?.put(1, 10), Error, "its call is over");
});

Deno.test("MemoryHost takes a failing policy out of service and lets the built-in place meanwhile", async () => {
  let calls = 0;
  const { host, lines, clock } = await hostOf({
    place() {
      calls++;
      throw new Error("mine");
    },
  }, { breaker: { faults: 2, backOffMs: 1000 } });
  using _ = host;
  for (let i = 0; i < 5; i++) assertEquals(host.place(request, cluster()), [{ member: 4, segments: 10 }]);
  assertEquals([calls, host.fallbacks.place], [2, 5]);
  assert(lines.includes("policy mine is out of service for 1000 ms"));
  clock.ms = 1000;
  host.place(request, cluster());
  assertEquals(calls, 3);
});

Deno.test("MemoryHost counts calls that take too long", async () => {
  const clock = { ms: 0 };
  const { host } = await hostOf({
    move() {
      clock.ms += 5;
    },
  }, { now: () => clock.ms, budgetMs: 4 });
  using _ = host;
  host.move(cluster());
  assertEquals([host.overruns, host.fallbacks.move], [{ place: 0, move: 1, evict: 0 }, 0]);
});

Deno.test("MemoryHost.load() checks options by the schema of the policy", async () => {
  const services = { now: () => 0, random: () => 0, log: () => {} };
  using host = await MemoryHost.load("builtin:infinite-llm", { ...services, config: { debtorBatch: 0.25 } });
  assertEquals([host.name, host.version], ["infinite-llm", "1.0.0"]);
  await assertRejects(
    () => MemoryHost.load("builtin:infinite-llm", { ...services, config: { debtorBatch: 2 } }),
    PluginError,
    "options/debtorBatch must be <= 1",
  );
  await assertRejects(
    () => MemoryHost.load("builtin:fcfs", services),
    PluginError,
    "wanted builtin:infinite-llm or builtin:local-only or builtin:spread, got no such built-in policy",
  );
  await assertRejects(() => hostOf({ kind: "scheduler" } as never), PluginError, `wanted kind "memory"`);
});

Deno.test("MemoryHost opens every built-in policy and refuses calls once it is disposed", async () => {
  for (const plugin of BUILTIN_MEMORY_POLICIES.values()) {
    const { host } = await hostOf(plugin);
    host.place(request, cluster());
    host[Symbol.dispose]();
    assertThrows(() => host.place(request, cluster()), ReferenceError, "it is disposed");
    assertThrows(() => host.move(cluster()), ReferenceError);
    assertThrows(() => host.evict(eviction()), ReferenceError);
  }
});
