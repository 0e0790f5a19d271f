import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { checkPlugin, reportLines } from "./check.ts";
import { memoryConformance, testSchedulerPolicy } from "./conformance.ts";
import { SCHEDULER_INVARIANTS } from "./invariants.ts";
import { MEMORY_INVARIANTS } from "./memory_invariants.ts";
import type { MemoryPlugin, SchedulerPlugin } from "./types.ts";

const sound: SchedulerPlugin = { api: 1, kind: "scheduler", name: "sound", version: "1.0.0", create: () => ({}) };

let calls = 0;
const forgetful: Partial<SchedulerPlugin> = {
  rank: (_state, _queue, out) => out.forEach((_, i) => out[i] = (calls++ * 7919) % 13),
};

const soundMemory: MemoryPlugin = { api: 1, kind: "memory", name: "sound", version: "1.0.0", create: () => ({}) };

const forgetfulMemory: Partial<MemoryPlugin> = {
  evict: (_state, _view, out) => out.forEach((_, i) => out[i] = (calls++ * 7919) % 13),
};

/** For each check of memory policies one that it finds at fault, and what it says. */
const memoryCulprits: Readonly<Record<string, readonly [string, Partial<MemoryPlugin>]>> = {
  handshake: ["the interface has no lend", { lend() {} } as Partial<MemoryPlugin>],
  create: ["Cannot create policy sound: Error: mine", {
    create() {
      throw new Error("mine");
    },
  }],
  place: ["it is not usable", {
    place(_state, { segments }, { members, self }, out) {
      const lender = members.lendableSegments.findIndex((lendable, i) => i !== self && lendable >= segments);
      if (lender >= 0) out.put(lender, segments);
    },
  }],
  move: ["it is pinned", {
    move(_state, { members, sequences }, out) {
      for (let s = 0; s < sequences.length; s++) {
        const to = members.usable.findIndex((usable, i) => {
          return usable === 1 && i !== sequences.home[s] && members.lendableSegments[i] > 20;
        });
        if (to >= 0 && sequences.localSegments[s] > 0) out.move(s, { from: sequences.home[s], to, segments: 1 });
      }
    },
  }],
  evict: ["wanted a finite number for candidate", {
    evict: (_state, view, out) => view.shared.forEach((shared, i) => out[i] = Math.log(shared - 1)),
  }],
  inputs: ["it writes into what it reads in evict", {
    evict: (_state, view, out) => out.set(view.tokens.fill(1)),
  }],
  replay: ["Cannot replay the run: decision", forgetfulMemory],
  isolation: ["Cannot run beside a second host: decision", forgetfulMemory],
};

/** For each check a policy that it finds at fault, and what it says. */
const culprits: Readonly<Record<string, readonly [string, Partial<SchedulerPlugin>]>> = {
  handshake: ["the interface has no rnak", { rnak() {} } as Partial<SchedulerPlugin>],
  create: ["Cannot create policy sound: Error: mine", {
    create() {
      throw new Error("mine");
    },
  }],
  admit: [`wanted kind "accept" or "reject", got maybe`, {
    admit: (_state, { tenant }) => tenant === "" ? { kind: "accept" } : ({ kind: "maybe" } as never),
  }],
  rank: ["wanted a finite rank", {
    rank: (_state, queue, out) => queue.priority.forEach((level, i) => out[i] = Math.log(level)),
  }],
  plan: ["(it decodes), got 0", {
    plan: (_state, step, out) => out.schedule(step.queue.id[0], Math.min(step.queue.pendingTokens[0], 1)),
  }],
  score: ["wanted a finite score for member member-", {
    score: (_state, _request, { members }, out) => out.set(members.stepMs),
  }],
  observe: ["Error: who?", {
    observe(_state, events) {
      if (events.some((event) => event.id > 1000)) throw new Error("who?");
    },
  }],
  inputs: ["it writes into what it reads in rank", { rank: (_state, queue, out) => out.set(queue.priority.sort()) }],
  replay: ["Cannot replay the run: decision", forgetful],
  isolation: ["Cannot run beside a second host: decision", forgetful],
  liveness: ["no sequence has ended", {
    plan(_state, { queue }, out) {
      const last = queue.length - 1;
      for (let i = 0; i < last && queue.running[i] === 1; i++) out.preempt(queue.id[i]);
      out.schedule(queue.id[last], 1);
    },
  }],
};

for (const { name, says, check } of SCHEDULER_INVARIANTS) {
  Deno.test(`the check that a policy ${says} finds a culprit`, async () => {
    const [message, hooks] = culprits[name];
    await assertRejects(() => check({ plugin: { ...sound, ...hooks }, seed: 1, rounds: 50 }), Error, message);
  });
}

for (const { name, says, check } of MEMORY_INVARIANTS) {
  Deno.test(`the check that a memory policy ${says} finds a culprit`, async () => {
    const [message, hooks] = memoryCulprits[name];
    await assertRejects(() => check({ plugin: { ...soundMemory, ...hooks }, seed: 1, rounds: 50 }), Error, message);
  });
}

Deno.test("memoryConformance() registers a test for each check that is not skipped", async () => {
  const tests: (readonly [string, () => Promise<void>])[] = [];
  memoryConformance({ plugin: soundMemory, skip: ["move"], register: (name, run) => tests.push([name, run]) });
  assertEquals(tests.length, MEMORY_INVARIANTS.length - 1);
  for (const [, run] of tests) await run();
  assertThrows(() => memoryConformance({ plugin: soundMemory, skip: ["plan"] }), RangeError, `"plan": wanted one of`);
});

Deno.test("checkPlugin() checks a memory policy by the rules of its kind", async () => {
  const source = (place: string) =>
    `data:application/javascript,${
      encodeURIComponent(
        `export default { api: 1, kind: "memory", name: "tight", version: "1.0.0", create() {}, place${place} };`,
      )
    }`;
  const sound = await checkPlugin(source("() {}"));
  assertEquals([sound.ok, sound.plugin?.kind, sound.checks.length], [true, "memory", MEMORY_INVARIANTS.length + 3]);
  const greedy = reportLines(await checkPlugin(source("(state, request, cluster, out) { out.put(0, 1); }")));
  assertEquals(greedy[0].endsWith("memory policy tight 1.0.0"), true);
  assert(
    greedy.some((line) => line.includes("FAILED  places all segments or none") && line.includes("wants to borrow")),
  );
});

Deno.test("testSchedulerPolicy() registers a test for each check that is not skipped", async () => {
  const tests: (readonly [string, () => Promise<void>])[] = [];
  testSchedulerPolicy({
    plugin: sound,
    skip: ["replay", "liveness"],
    register: (name, run) => tests.push([name, run]),
  });
  assertEquals(tests.length, SCHEDULER_INVARIANTS.length - 2);
  for (const [name, run] of tests) {
    assert(name.startsWith("sound "));
    await run();
  }
  assertThrows(() => testSchedulerPolicy({ plugin: sound, skip: ["speed"] }), RangeError, `"speed": wanted one of`);
});

Deno.test("checkPlugin() reports a file that is no plugin by one failed check", async () => {
  const report = await checkPlugin("./check.ts", { directory: import.meta.dirname });
  assertEquals(report.ok, false);
  assertEquals(report.checks.map(({ ok }) => ok), [false]);
  const lines = reportLines(report);
  assertEquals(lines[0], "./check.ts");
  assertStringIncludes(lines[1], "FAILED  loads: PluginError: Cannot load plugin ./check.ts: wanted a default export");
  assertEquals(lines[2], "1 of 1 checks failed");
});

Deno.test("checkPlugin() names what a policy does wrong", async () => {
  const source = `export default { api: 1, kind: "scheduler", name: "bad", version: "1.0.0", create() {},
    rank(state, queue, out) { out[0] = 1; } };`;
  const report = await checkPlugin(`data:application/javascript,${encodeURIComponent(source)}`);
  const lines = reportLines(report);
  assertStringIncludes(lines[0], "scheduler policy bad 1.0.0");
  assert(lines.some((line) => line.startsWith("  ok      accepts or rejects")));
  assert(lines.some((line) => line.startsWith("  FAILED  writes a finite rank") && line.includes("got NaN")));
  assert(!report.ok);
});
