import { assertEquals, assertGreater, assertLess } from "@std/assert";
import { BUILTIN_SCHEDULERS } from "../../plugins/load.ts";
import { SchedulerHost } from "../../plugins/host.ts";
import type { SchedulerPlugin } from "../../plugins/types.ts";
import { Engine } from "./engine.ts";
import type { EngineRequest } from "./request.ts";
import { TestDevice, testGreedy, testVocabulary } from "./test_device.ts";
import { Transcript } from "./test_engine.ts";

/** An engine under a real policy host, on a clock of one millisecond a step. */
async function underPolicy(plugin: SchedulerPlugin, options: { readonly blocks?: number } = {}) {
  let nowMs = 0;
  const now = () => nowMs;
  const log: string[] = [];
  const host = await SchedulerHost.open(plugin, { now, random: () => 0.5, log: (line) => log.push(line) });
  const engine = new Engine({
    device: new TestDevice({ blocks: options.blocks ?? 64 }),
    policy: host,
    vocabulary: testVocabulary(),
    eos: [],
    maxModelLen: 200,
    maxBatch: 4,
    modelName: "test",
    modelDigest: "00",
    now,
  });
  const ended: string[] = [];
  const run = (requests: EngineRequest[]): Transcript[] => {
    const transcripts = requests.map((request) => {
      const transcript = new Transcript();
      engine.add(request, (event) => {
        transcript.take(event);
        if (event.kind === "end") ended.push(request.id);
      });
      return transcript;
    });
    while (engine.busy) {
      engine.step();
      engine.checkIntegrity();
      nowMs++;
    }
    return transcripts;
  };
  return { engine, host, run, ended, log };
}

function requests(count: number, maxTokens = 12): EngineRequest[] {
  return Array.from({ length: count }, (_, i) => ({
    id: `${i}`,
    prompt: [i, 2 * i + 1, 3, 4, 5],
    maxTokens,
    priority: -i,
    sampling: { temperature: 0 },
  }));
}

function builtin(name: string): SchedulerPlugin {
  const plugin = BUILTIN_SCHEDULERS.get(name);
  if (plugin === undefined) throw new Error(`No built-in policy ${name}`);
  return plugin;
}

for (const name of BUILTIN_SCHEDULERS.keys()) {
  Deno.test(`Engine under builtin:${name} gives every request its tokens while blocks run out`, async () => {
    const { engine, run, log } = await underPolicy(builtin(name), { blocks: 10 });
    const all = requests(12, 20);
    const transcripts = run(all);
    assertEquals(transcripts.map(({ ids }) => ids[0]), all.map(({ prompt }) => testGreedy(prompt, 20)));
    assertGreater(engine.stats().preemptions, 0);
    assertEquals(Object.values(engine.stats().policyFallbacks).filter((count) => count > 0), []);
    assertEquals(log, []);
  });
}

Deno.test("Engine under builtin:priority serves the lowest number first", async () => {
  const { run, ended } = await underPolicy(builtin("priority"));
  run(requests(12));
  assertLess(ended.indexOf("11"), 4);
  assertGreater(ended.indexOf("0"), 7);
});

Deno.test("Engine carries out the plans of a policy", async () => {
  const oneAtATime: SchedulerPlugin = {
    api: 1,
    kind: "scheduler",
    name: "one-at-a-time",
    version: "1.0.0",
    create: () => ({}),
    plan(_state, { queue, tokenBudget }, out) {
      out.schedule(queue.id[0], Math.min(tokenBudget, Math.max(1, queue.pendingTokens[0])));
    },
  };
  const { engine, run, ended } = await underPolicy(oneAtATime);
  const all = requests(5);
  const transcripts = run(all);
  assertEquals(transcripts.map(({ ids }) => ids[0]), all.map(({ prompt }) => testGreedy(prompt, 12)));
  assertEquals(ended, ["0", "1", "2", "3", "4"]);
  assertEquals([engine.stats().steps, engine.stats().policyFallbacks.plan], [60, 0]);
});

Deno.test("Engine counts and survives a policy that answers nonsense", async () => {
  const nonsense: SchedulerPlugin = {
    api: 1,
    kind: "scheduler",
    name: "nonsense",
    version: "1.0.0",
    create: () => ({ calls: 0 }),
    rank(_state, _queue, out) {
      out.fill(NaN);
    },
    plan(_state, _step, out) {
      out.schedule(4711, 1);
    },
  };
  const { engine, run, log } = await underPolicy(nonsense);
  const all = requests(5);
  const transcripts = run(all);
  assertEquals(transcripts.map(({ ids }) => ids[0]), all.map(({ prompt }) => testGreedy(prompt, 12)));
  const { rank, plan } = engine.stats().policyFallbacks;
  assertGreater(rank, 0);
  assertGreater(plan, 0);
  assertGreater(log.length, 0);
});
