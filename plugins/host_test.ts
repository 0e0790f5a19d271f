import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { PluginError } from "./error.ts";
import { hostOf, queueOf } from "./test_views.ts";
import type { EngineEvent, InstanceView, QueueView, RequestView, SchedulerPlugin, StepView } from "./types.ts";

const request: RequestView = { id: "r", promptTokens: 10, maxTokens: 5, priority: 0, tenant: "" };
const instance: InstanceView = { waiting: 1, running: 1, totalBlocks: 64, availableBlocks: 32, blockTokens: 16 };

/** Sequence 1 decodes, 2 prefills, 3 waits. */
function step(): StepView {
  const queue = queueOf({ id: 1, running: true, generated: 1 }, { id: 2, running: true, pending: 40 }, {
    id: 3,
    pending: 100,
  });
  return { queue, instance, tokenBudget: 64, maxSequences: 2 };
}

Deno.test("SchedulerHost.rank() sorts by rank, ties by arrival and then id", async () => {
  const { host } = await hostOf({ rank: (_state, queue, out) => out.set(queue.priority) });
  using _ = host;
  const queue = queueOf(
    { id: 4, priority: 1, arrivedMs: 5 },
    { id: 3, priority: 1, arrivedMs: 2 },
    { id: 9, priority: -1, arrivedMs: 9 },
    { id: 2, priority: 1, arrivedMs: 5 },
  );
  assertEquals([...host.rank(queue)], [2, 1, 3, 0]);
  assertEquals(host.fallbacks, { admit: 0, rank: 0, plan: 0, score: 0, observe: 0 });
});

Deno.test("SchedulerHost answers by itself for hooks that a policy lacks", async () => {
  const { host } = await hostOf({});
  using _ = host;
  assertEquals(host.admit(request, instance), { kind: "accept" });
  assertEquals([...host.rank(queueOf({ id: 1, arrivedMs: 2 }, { id: 2, arrivedMs: 1 }))], [1, 0]);
  assertEquals(host.plan(step()), null);
  host.observe([{ kind: "queued", id: 1, atMs: 0 }]);
  assertEquals(host.fallbacks, { admit: 0, rank: 0, plan: 0, score: 0, observe: 0 });
});

Deno.test("SchedulerHost.admit() passes rejections on and refuses anything else", async () => {
  const answers: unknown[] = [
    { kind: "reject", status: 429, reason: "enough" },
    { kind: "reject", status: 200, reason: "odd" },
    { kind: "reject", status: 503, reason: "" },
    { kind: "maybe" },
    null,
    Promise.reject(new Error("late")),
    { then() {} },
  ];
  const { host, lines } = await hostOf({ admit: () => answers.shift() as never }, { breaker: { faults: 100 } });
  using _ = host;
  assertEquals(host.admit(request, instance), { kind: "reject", status: 429, reason: "enough" });
  for (let i = 1; i < 7; i++) {
    assertEquals(host.admit(request, instance), { kind: "accept" });
    assertEquals(host.fallbacks.admit, i);
  }
  assertEquals(lines.length, 1);
  assertStringIncludes(lines[0], "policy mine failed in admit, the built-in stands in: ");
  assertStringIncludes(lines[0], "wanted status 429 or 503, got 200");
});

Deno.test("SchedulerHost.rank() uses arrival order when ranks are missing, not finite, detached or late", async () => {
  const faults: readonly (readonly [string, NonNullable<SchedulerPlugin["rank"]>])[] = [
    ["throws", () => {
      throw new Error("no");
    }],
    ["NaN", (_state, _queue, out) => out.fill(NaN)],
    ["Infinity", (_state, _queue, out) => out.fill(Infinity)],
    ["one missing", (_state, _queue, out) => {
      out[0] = 1;
    }],
    ["detached", (_state, _queue, out) => {
      structuredClone(out, { transfer: [out.buffer as ArrayBuffer] });
    }],
    ["promise", async (_state, _queue, out) => {
      out.fill(1);
      await Promise.reject(new Error("late"));
    }],
  ];
  for (const [name, rank] of faults) {
    const { host } = await hostOf({ rank });
    using _ = host;
    assertEquals([...host.rank(queueOf({ id: 1, arrivedMs: 2 }, { id: 2, arrivedMs: 1 }))], [1, 0], name);
    assertEquals(host.fallbacks.rank, 1, name);
  }
});

Deno.test("SchedulerHost.plan() passes a sound plan on", async () => {
  const { host } = await hostOf({
    plan(_state, _step, out) {
      out.preempt(2);
      out.schedule(1, 1);
      out.schedule(3, 63);
    },
  });
  using _ = host;
  const plan = host.plan(step());
  assertEquals([...plan?.tokens ?? []], [[1, 1], [3, 63]]);
  assertEquals(plan?.preempt, [2]);
});

Deno.test("SchedulerHost.plan() refuses plans that break a rule and says which", async () => {
  const faults: readonly (readonly [string, NonNullable<SchedulerPlugin["plan"]>])[] = [
    ["sequence 8: it is not in the view", (_state, _step, out) => out.schedule(8, 1)],
    ["sequence 8: it is not in the view", (_state, _step, out) => out.preempt(8)],
    ["sequence __proto__: it is not in the view", (_state, _step, out) => out.schedule("__proto__" as never, 1)],
    ["wanted 1 to 1 tokens (it decodes), got 2", (_state, _step, out) => out.schedule(1, 2)],
    ["wanted 1 to 40 tokens (40 are pending), got 41", (_state, _step, out) => out.schedule(2, 41)],
    ["got 0", (_state, _step, out) => out.schedule(2, 0)],
    ["got -1", (_state, _step, out) => out.schedule(2, -1)],
    ["got 1.5", (_state, _step, out) => out.schedule(2, 1.5)],
    ["got NaN", (_state, _step, out) => out.schedule(2, NaN)],
    ["got 1", (_state, _step, out) => out.schedule(2, "1" as never)],
    ["scheduled already", (_state, _step, out) => {
      out.schedule(1, 1);
      out.schedule(1, 1);
    }],
    ["wanted at most 64 tokens in all, got 65", (_state, _step, out) => {
      out.schedule(1, 1);
      out.schedule(3, 64);
    }],
    ["wanted at most 2 sequences, got 3", (_state, _step, out) => [1, 2, 3].forEach((id) => out.schedule(id, 1))],
    ["both scheduled and preempted", (_state, _step, out) => {
      out.schedule(2, 1);
      out.preempt(2);
    }],
    ["sequence 3: it does not run", (_state, _step, out) => out.preempt(3)],
    ["wanted at least one scheduled sequence", () => {}],
    ["Cannot use a promise", (_state, _step, out) => {
      out.schedule(1, 1);
      return Promise.resolve() as never;
    }],
    ["Error: mine", () => {
      throw new Error("mine");
    }],
    ["got 2", (_state, _step, out) => {
      try {
        out.schedule(1, 2);
      } catch {
        out.schedule(1, 1);
      }
    }],
  ];
  for (const [reason, plan] of faults) {
    const { host, lines } = await hostOf({ plan });
    using _ = host;
    assertEquals(host.plan(step()), null, reason);
    assertEquals(host.fallbacks.plan, 1, reason);
    assertStringIncludes(lines[0], reason);
  }
});

Deno.test("SchedulerHost.plan() closes a plan when its step is over", async () => {
  let kept: { schedule(id: number, tokens: number): void } | undefined;
  const { host } = await hostOf({
    plan(_state, _step, out) {
      kept ??= out;
      out.schedule(1, 1);
    },
  });
  using _ = host;
  const plan = host.plan(step());
  assertThrows(() => kept?.schedule(2, 1), Error, "its call is over");
  assertEquals([...plan?.tokens ?? []], [[1, 1]]);
});

Deno.test("SchedulerHost gives policies copies that they may spoil", async () => {
  const spoil = (view: object) => {
    for (const [key, value] of Object.entries(view)) {
      if (ArrayBuffer.isView(value)) (value as Int32Array).fill(77);
      else if (typeof value === "object") spoil(value);
      else Reflect.set(view, key, 77);
    }
  };
  const { host } = await hostOf({
    admit(_state, seen, at) {
      spoil(seen);
      spoil(at);
      return { kind: "accept" };
    },
    rank(_state, queue, out) {
      out.set(queue.priority);
      spoil(queue);
    },
    plan(_state, seen, out) {
      spoil(seen);
      out.schedule(2, 41);
    },
    observe: (_state, events) => events.forEach(spoil),
  });
  using _ = host;
  const views = { request: { ...request }, instance: { ...instance }, step: step() };
  const events: EngineEvent[] = [{ kind: "ended", id: 1, atMs: 0, reason: "stop" }];
  const before = structuredClone({ views, events });
  host.admit(views.request, views.instance);
  host.rank(views.step.queue);
  assertEquals(host.plan(views.step), null);
  host.observe(events);
  assertEquals({ views, events }, before);
  assertEquals(host.fallbacks, { admit: 0, rank: 0, plan: 1, score: 0, observe: 0 });
});

Deno.test("SchedulerHost.observe() survives a policy that throws", async () => {
  const { host } = await hostOf({
    observe() {
      throw new Error("mine");
    },
  });
  using _ = host;
  host.observe([{ kind: "queued", id: 1, atMs: 0 }]);
  host.observe([]);
  assertEquals(host.fallbacks.observe, 1);
});

Deno.test("SchedulerHost.open() checks options against the schema and fills defaults in", async () => {
  let seen: unknown;
  const hooks: Partial<SchedulerPlugin> = {
    configSchema: {
      type: "object",
      properties: { limit: { type: "integer", minimum: 1, default: 3 }, deep: { type: "object" } },
      additionalProperties: false,
    },
    create: ({ config }) => seen = config,
  };
  (await hostOf(hooks)).host[Symbol.dispose]();
  assertEquals(seen, { limit: 3 });
  (await hostOf(hooks, { config: { limit: 5, deep: { a: 1 } } })).host[Symbol.dispose]();
  assertEquals(seen, { limit: 5, deep: { a: 1 } });
  assert(Object.isFrozen(seen) && Object.isFrozen((seen as { deep: object }).deep));
  const message = async (config: unknown, given = hooks) =>
    (await assertRejects(() => hostOf(given, { config }), PluginError)).message;
  assertEquals(await message({ limit: 0 }), "Cannot configure plugin mine: options/limit must be >= 1");
  assertStringIncludes(await message({ limits: 1 }), `additional properties ("limits")`);
  assertStringIncludes(await message([]), "wanted an object of options, got []");
  assertStringIncludes(await message({ limit: () => {} }), "wanted options of plain data");
  assertStringIncludes(await message({ limit: 1 }, {}), "wanted no options (it has no configSchema), got limit");
  assertStringIncludes(await message({}, { configSchema: { type: "nonsense" } }), "wanted a JSON Schema (2020-12)");
});

Deno.test("SchedulerHost.open() refuses a policy whose create throws or is asynchronous", async () => {
  const error = await assertRejects(() =>
    hostOf({
      create() {
        throw new RangeError("mine");
      },
    }), PluginError);
  assertEquals(error.message, "Cannot create policy mine: RangeError: mine");
  assertEquals([error.plugin, error.hook], ["mine", "create"]);
  await assertRejects(
    () => hostOf({ create: () => Promise.reject(new Error("late")) }),
    PluginError,
    "Cannot use a promise",
  );
});

Deno.test("SchedulerHost refuses calls once it is disposed", async () => {
  const { host } = await hostOf({
    rank() {},
    dispose() {
      throw new Error("mine");
    },
  });
  host[Symbol.dispose]();
  assertThrows(() => host.rank(queueOf({ id: 1 })), ReferenceError, "it is disposed");
  assertThrows(() => host.plan(step()), ReferenceError);
  assertThrows(() => host.admit(request, instance), ReferenceError);
  assertThrows(() => host.observe([]), ReferenceError);
});

Deno.test("SchedulerHost calls hooks on the plugin object and hands its services on", async () => {
  const seen: unknown[] = [];
  const plugin = {
    api: 1 as const,
    kind: "scheduler" as const,
    name: "with-this",
    version: "1.0.0",
    weight: 3,
    create: (context: unknown) => context,
    rank(this: { weight: number }, state: unknown, _queue: QueueView, out: Float64Array) {
      const context = state as { now(): number; random(): number };
      seen.push(this.weight, context.now(), context.random());
      out.fill(0);
    },
  };
  const { host } = await hostOf(plugin as Partial<SchedulerPlugin>);
  using _ = host;
  host.rank(queueOf({ id: 1 }));
  assertEquals(seen, [3, 0, 0.5]);
  assertEquals([host.name, host.version], ["with-this", "1.0.0"]);
});
