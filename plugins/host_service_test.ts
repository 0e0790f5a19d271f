import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { hostOf, queueOf, type Row } from "./test_views.ts";
import type { StepView } from "./types.ts";

/** A step with room for everything. */
function stepOf(...rows: readonly Row[]): StepView {
  return {
    queue: queueOf(...rows),
    instance: { waiting: 1, running: 1, totalBlocks: 64, availableBlocks: 32, blockTokens: 16 },
    tokenBudget: 64,
    maxSequences: 2,
  };
}

Deno.test("SchedulerHost.rank() overrules a policy that puts later arrivals before a sequence that starves", async () => {
  const { host, lines, clock } = await hostOf({
    rank: (_state, queue, out) => queue.id.forEach((id, i) => out[i] = -id),
  }, { starvationMs: 1000 });
  using _ = host;
  const old = { id: 1, pending: 5, arrivedMs: 0 };
  host.rank(queueOf(old));
  clock.ms = 1001;
  assertEquals([...host.rank(queueOf(old, { id: 2, pending: 5, arrivedMs: 900 }))], [0, 1]);
  assertEquals(host.fallbacks.rank, 1);
  assertStringIncludes(lines[0], "sequence 1 behind: it starves");
  // Progress ends it: the sequence runs, then has been preempted.
  host.rank(queueOf({ ...old, pending: 4, running: true }));
  assertEquals([...host.rank(queueOf(old, { id: 2, pending: 5, arrivedMs: 900 }))], [1, 0]);
  assertEquals(host.fallbacks.rank, 1);
  // It starves for the policy's order, not for its faults: it stays in service.
  for (clock.ms = 3000; clock.ms < 3020; clock.ms++) {
    assertEquals([...host.rank(queueOf(old, { id: 3, pending: 5, arrivedMs: 2900 }))], [0, 1]);
  }
  assert(!lines.some((line) => line.includes("out of service")));
});

Deno.test("SchedulerHost.plan() overrules a policy that never schedules a running sequence", async () => {
  const { host, clock } = await hostOf({ plan: (_state, _step, out) => out.schedule(1, 1) }, { starvationMs: 1000 });
  using _ = host;
  const at = (generated: number) =>
    stepOf({ id: 1, running: true, generated }, { id: 2, running: true, prompt: 100, pending: 40 });
  assertEquals(host.plan(at(1))?.tokens.size, 1);
  clock.ms = 1500;
  assertEquals(host.plan(at(2)), null);
  assertEquals(host.fallbacks.plan, 1);
});

Deno.test("SchedulerHost.plan() overrules a policy that starts later arrivals before one that starves", async () => {
  const { host, clock } = await hostOf({ plan: (_state, _step, out) => out.schedule(2, 1) }, { starvationMs: 1000 });
  using _ = host;
  const at = (arrivedMs: number) => stepOf({ id: 1, pending: 40, arrivedMs: 0 }, { id: 2, pending: 40, arrivedMs });
  assertEquals(host.plan(at(500))?.tokens.size, 1);
  clock.ms = 1400;
  assertEquals(host.plan(at(500)), null);
});

Deno.test("SchedulerHost takes a policy out of service after five faults and tries again later", async () => {
  let sound = false;
  let created = 0;
  let disposed = 0;
  let calls = 0;
  const { host, lines, clock } = await hostOf({
    create: () => ({ id: created++ }),
    rank(_state, _queue, out) {
      calls++;
      if (sound) out.fill(0);
    },
    dispose: () => {
      disposed++;
    },
  });
  const rank = () => host.rank(queueOf({ id: 1 }));
  for (let i = 0; i < 8; i++) rank();
  assertEquals([calls, host.fallbacks.rank], [5, 8]);
  assert(lines.includes("policy mine is out of service for 5000 ms"), lines.join("; "));
  // The first retry fails at once and doubles the time.
  clock.ms = 5000;
  rank();
  rank();
  assertEquals([calls, created, disposed], [6, 2, 1]);
  clock.ms = 14_999;
  rank();
  assertEquals(calls, 6);
  sound = true;
  clock.ms = 15_000;
  rank();
  rank();
  assertEquals([calls, created, disposed, host.fallbacks.rank], [8, 3, 2, 11]);
  host[Symbol.dispose]();
  host[Symbol.dispose]();
  assertEquals(disposed, 3);
});

Deno.test("SchedulerHost forgets faults that lie further back than the window", async () => {
  let calls = 0;
  const { host, clock } = await hostOf({ rank: () => void calls++ });
  using _ = host;
  for (let i = 0; i < 20; i++, clock.ms += 15_001) host.rank(queueOf({ id: 1 }));
  assertEquals(calls, 20);
});

Deno.test("SchedulerHost keeps the built-in when a policy cannot be created anew", async () => {
  let created = 0;
  const { host, clock } = await hostOf({
    create() {
      if (created++ > 0) throw new Error("gone");
    },
    rank() {},
  });
  using _ = host;
  for (clock.ms = 0; clock.ms < 100_000; clock.ms += 1000) {
    assertEquals([...host.rank(queueOf({ id: 1, arrivedMs: 2 }, { id: 2, arrivedMs: 1 }))], [1, 0]);
  }
  assertEquals(created, 5);
});

Deno.test("SchedulerHost counts calls that take too long and logs them once", async () => {
  const clock = { ms: 0 };
  const lines: string[] = [];
  const { host } = await hostOf({
    rank(_state, _queue, out) {
      clock.ms += 3;
      out.fill(0);
    },
  }, { now: () => clock.ms, log: (line) => lines.push(line) });
  using _ = host;
  host.rank(queueOf({ id: 1 }));
  host.rank(queueOf({ id: 1 }));
  assertEquals(host.overruns, { admit: 0, rank: 2, plan: 0, score: 0, observe: 0 });
  assertEquals(host.fallbacks.rank, 0);
  assertEquals(lines, ["policy mine took 3.0 ms in rank, its budget is 2 ms"]);
});

Deno.test("SchedulerHost limits and cleans what a policy writes to the log", async () => {
  const { host, lines, clock } = await hostOf({
    create: (context) => context,
    observe(context) {
      const { log } = context as { log(message: string): void };
      for (let i = 0; i < 100; i++) log(`line ${i}\n\u001b[31mforged`);
    },
  });
  using _ = host;
  host.observe([{ kind: "queued", id: 1, atMs: 0 }]);
  assertEquals(lines.length, 20);
  assertEquals(lines[0], "mine: line 0 [31mforged");
  clock.ms = 10_000;
  host.observe([{ kind: "queued", id: 1, atMs: 0 }]);
  assertEquals(lines[20], "mine: line 0 [31mforged (80 more like it left out)");
});
