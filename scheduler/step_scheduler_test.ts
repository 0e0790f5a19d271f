import { assert, assertEquals, assertGreater, assertLessOrEqual, assertThrows } from "@std/assert";
import fc from "fast-check";
import { BlockPool } from "./block_pool.ts";
import { prefixSalt } from "./prefix_chain.ts";
import { Sequence, type SequenceOptions } from "./sequence.ts";
import { logitRows } from "./step_plan.ts";
import { StepScheduler, type StepSchedulerOptions } from "./step_scheduler.ts";
import { TestPolicy } from "./test_policy.ts";

const SALT = prefixSalt({ modelDigest: "m", kvType: "f16", layout: "l", tenantSalt: "" });
const BLOCK_TOKENS = 4;

/** A scheduler with a clock, whose sequences generate the token 7 until they are done. */
class Bench {
  readonly policy = new TestPolicy();
  readonly pool: BlockPool;
  readonly scheduler: StepScheduler;
  readonly limits: { readonly tokens: number; readonly rows: number };
  readonly log: string[] = [];
  /** What the last plan foresaw: as {@linkcode step} says it, with a star for a token that its step chose. */
  following: string[] = [];
  nowMs = 0;
  #nextId = 1;

  constructor(blocks: number, options: Partial<StepSchedulerOptions> = {}) {
    this.pool = new BlockPool(blocks);
    const all = {
      pool: this.pool,
      policy: this.policy,
      blockTokens: BLOCK_TOKENS,
      maxStepTokens: 16,
      maxLogitRows: 8,
      maxBatch: 4,
      now: () => this.nowMs,
      ...options,
    };
    this.limits = { tokens: all.maxStepTokens, rows: all.maxLogitRows };
    this.scheduler = new StepScheduler(all);
  }

  add(prompt: number, maxTokens: number, options: Partial<SequenceOptions> = {}): Sequence {
    const id = this.#nextId++;
    const sequence = new Sequence({
      id,
      prompt: Int32Array.from({ length: prompt }, (_, i) => 100 * id + i),
      maxTokens,
      arrivedMs: this.nowMs,
      salt: SALT,
      blockTokens: BLOCK_TOKENS,
      ...options,
    });
    this.scheduler.add(sequence);
    return sequence;
  }

  /** Runs a step. @returns `id:tokens` for each entry, with a letter for its rows of logits. */
  step(): string[] {
    const { entries, following } = this.scheduler.schedule();
    for (const { sequence, position, tokens } of following) {
      assertEquals(sequence.status, "running");
      assertLessOrEqual(position + tokens, sequence.capacity);
    }
    assertLessOrEqual(following.reduce((sum, { tokens }) => sum + tokens, 0), this.limits.tokens);
    this.following = following.map(({ sequence, tokens, logits, chosen }) =>
      `${sequence.id}:${tokens}${logits[0]}${chosen ? "*" : ""}`
    );
    assertLessOrEqual(entries.reduce((sum, entry) => sum + entry.tokens, 0), this.limits.tokens);
    assertLessOrEqual(entries.reduce((sum, entry) => sum + logitRows(entry), 0), this.limits.rows);
    this.scheduler.checkIntegrity();
    const summary = entries.map(({ sequence, tokens, logits }) => `${sequence.id}:${tokens}${logits[0]}`);
    for (const entry of entries) {
      const { sequence } = entry;
      const sampled = entry.tokens === sequence.pending && sequence.maxTokens > 0;
      this.scheduler.commit(entry, sampled ? 7 : undefined);
      if (sequence.pending === 0 || sequence.generated === sequence.maxTokens) this.scheduler.end(sequence, "length");
    }
    this.scheduler.settle();
    this.scheduler.checkIntegrity();
    this.nowMs++;
    return summary;
  }

  /** Runs until nothing is left to do. @returns the number of steps. */
  drain(): number {
    let steps = 0;
    while (this.step().length > 0) assertLessOrEqual(++steps, 10_000, "the scheduler never comes to an end");
    assertEquals(this.pool.counts.owned, 0);
    assertEquals([this.scheduler.instance.waiting, this.scheduler.instance.running], [0, 0]);
    return steps;
  }
}

Deno.test("StepScheduler.schedule() mixes decodes and prefill chunks under one token budget", () => {
  const bench = new Bench(32);
  bench.add(20, 3);
  bench.add(10, 2);
  assertEquals(bench.step(), ["1:16n"]);
  assertEquals(bench.step(), ["1:4l", "2:10l"]);
  assertEquals(bench.step(), ["1:1l", "2:1l"]);
  assertEquals(bench.step(), ["1:1l"]);
  assertEquals(bench.step(), []);
});

Deno.test("StepScheduler.schedule() starts a newcomer while others decode", () => {
  const bench = new Bench(32);
  bench.add(2, 9);
  bench.step();
  bench.add(30, 1);
  assertEquals(bench.step(), ["1:1l", "2:15n"]);
  assertEquals(bench.step(), ["1:1l", "2:15l"]);
});

Deno.test("StepScheduler.schedule() takes smaller steps while a sequence decodes", () => {
  const bench = new Bench(32, { mixedStepTokens: 5 });
  bench.add(2, 3);
  bench.step();
  bench.add(30, 1);
  assertEquals([bench.step(), bench.step(), bench.step()], [["1:1l", "2:4n"], ["1:1l", "2:4n"], ["2:16n"]]);
});

Deno.test("StepScheduler.schedule() keeps to the batch limit", () => {
  const bench = new Bench(32, { maxBatch: 2 });
  for (let i = 0; i < 3; i++) bench.add(2, 2);
  assertEquals(bench.step(), ["1:2l", "2:2l"]);
  assertEquals(bench.step(), ["1:1l", "2:1l"]);
  assertEquals(bench.step(), ["3:2l"]);
});

Deno.test("StepScheduler.schedule() cuts chunks whose rows of logits do not fit", () => {
  const bench = new Bench(32);
  bench.add(2, 9);
  bench.step();
  bench.add(12, 1, { promptRows: true });
  assertEquals(bench.step(), ["1:1l", "2:7a"]);
  assertEquals(bench.step(), ["1:1l", "2:5a"]);
});

Deno.test("StepScheduler.schedule() holds a last token back when no row is left", () => {
  const bench = new Bench(32);
  bench.add(9, 1, { promptRows: true });
  bench.add(3, 1);
  assertEquals(bench.step(), ["1:8a", "2:2n"]);
  assertEquals(bench.step(), ["1:1l", "2:1l"]);
});

Deno.test("StepScheduler.schedule() gives decodes their next block early when it plans ahead, where there are blocks", () => {
  const lengths = (options: { ahead: boolean; blocks: number }) => {
    const bench = new Bench(options.blocks, { ...options, prefixCache: false });
    const [first, second] = [bench.add(6, 12), bench.add(5, 12)];
    return Array.from({ length: 7 }, () => {
      bench.step();
      return `${first.blocks.length} ${second.blocks.length}`;
    });
  };
  // Their tables grow with the steps that compute positions 8 and 12.
  assertEquals(lengths({ ahead: false, blocks: 32 }), ["2 2", "2 2", "2 2", "3 2", "3 3", "3 3", "3 3"]);
  assertEquals(lengths({ ahead: true, blocks: 32 }), ["2 2", "2 2", "3 2", "3 3", "3 3", "3 3", "4 3"]);
});

Deno.test("StepScheduler.schedule() says what the step behind computes, and keeps to it", () => {
  const bench = new Bench(32, { ahead: true, mixedStepTokens: 8 });
  bench.add(20, 3);
  assertEquals([bench.step(), bench.following], [["1:16n"], ["1:4l"]]);
  bench.add(6, 9);
  assertEquals([bench.step(), bench.following], [["1:4l"], ["1:1l*", "2:6l"]]);
  bench.add(9, 1);
  assertEquals([bench.step(), bench.following], [["1:1l", "2:6l"], ["1:1l*", "2:1l*", "3:6n"]]);
  assertEquals([bench.step(), bench.following], [["1:1l", "2:1l", "3:6n"], ["2:1l*", "3:3l"]], "1 has its last token");
  assertEquals([bench.step(), bench.following], [["2:1l", "3:3l"], ["2:1l*"]]);
  bench.drain();
});

Deno.test("StepScheduler.schedule() plans what was foreseen without those that have ended", () => {
  const bench = new Bench(32, { ahead: true });
  const [first] = [bench.add(3, 9), bench.add(4, 9)];
  bench.step();
  assertEquals(bench.following, ["1:1l*", "2:1l*"]);
  bench.scheduler.end(first, "cancelled");
  bench.add(5, 9);
  assertEquals([bench.step(), bench.following], [["2:1l"], ["2:1l*", "3:5l"]]);
  bench.drain();
});

Deno.test("StepScheduler.schedule() lets a prompt wait whose beginning is being computed", () => {
  const bench = new Bench(32, { ahead: true });
  const prompt = Int32Array.from({ length: 16 }, (_, i) => i);
  bench.add(16, 9, { prompt });
  const second = bench.add(16, 9, { prompt });
  assertEquals([bench.step(), bench.following], [["1:16l"], ["1:1l*"]]);
  assertEquals([bench.step(), bench.following], [["1:1l"], ["1:1l*", "2:4l"]]);
  assertEquals(second.cachedTokens, 12);
  bench.drain();
});

Deno.test("StepScheduler preempts the lowest rank when blocks run out, and loses nothing", () => {
  const bench = new Bench(5, { prefixCache: false });
  const [first, second] = [bench.add(7, 10), bench.add(7, 10)];
  assertEquals(bench.step(), ["1:7l", "2:7l"]);
  assertEquals(bench.step(), ["1:1l", "2:1l"]);
  assertEquals(bench.step(), ["1:1l"], "the fifth block goes to the first sequence");
  assertEquals([second.status, second.generated, second.preemptions], ["waiting", 2, 1]);
  assertEquals(second.blocks, []);
  bench.drain();
  assertEquals([first.preemptions, second.generated], [0, 10]);
  assertEquals(bench.policy.events.filter((event) => event.id === 2).map((event) => event.kind), [
    "queued",
    "started",
    "first-token",
    "preempted",
    "ended",
  ]);
});

Deno.test("StepScheduler lets nobody be the victim forever under a policy that always ranks newcomers first", () => {
  const bench = new Bench(6, { prefixCache: false, maxPreemptions: 2, starvationMs: 20 });
  bench.policy.ranker = (queue) => Int32Array.from(queue.id.keys()).sort((a, b) => queue.id[b] - queue.id[a]);
  const oldest = bench.add(3, 16);
  let steps = 0;
  while (oldest.status !== "ended") {
    if (bench.scheduler.instance.waiting < 2) bench.add(3, 8);
    bench.step();
    assertLessOrEqual(++steps, 400, "newcomers keep the oldest sequence from its end");
  }
  assertEquals(oldest.preemptions, 2);
  assertEquals(oldest.generated, 16);
});

Deno.test("StepScheduler gives one start in four to a sequence that starves in the queue", () => {
  const bench = new Bench(32, { maxBatch: 1, starvationMs: 10 });
  bench.policy.ranker = (queue) => Int32Array.from(queue.id.keys()).sort((a, b) => queue.id[b] - queue.id[a]);
  const oldest = bench.add(2, 1);
  bench.add(2, 1);
  while (oldest.status === "waiting") {
    bench.step();
    bench.add(2, 1);
    assertLessOrEqual(bench.nowMs, 20, "the oldest sequence starves");
  }
  assertGreater(bench.nowMs, 10);
});

Deno.test("StepScheduler lets no later sequence overtake one that does not fit yet", () => {
  const bench = new Bench(6);
  bench.add(12, 4);
  const large = bench.add(16, 1);
  const small = bench.add(2, 1);
  bench.step();
  assertEquals([large.status, small.status], ["waiting", "waiting"]);
  bench.drain();
});

Deno.test("StepScheduler shares cached prefixes but always computes the last token", () => {
  const bench = new Bench(32);
  const prompt = Int32Array.from({ length: 8 }, (_, i) => i);
  bench.add(8, 1, { prompt });
  bench.drain();
  const repeated = bench.add(8, 1, { prompt });
  assertEquals(bench.step(), ["2:4l"]);
  assertEquals(repeated.cachedTokens, 4);
  const longer = bench.add(9, 1, { prompt: Int32Array.from([...prompt, 8]) });
  assertEquals(bench.step(), ["3:1l"]);
  assertEquals(longer.cachedTokens, 8);
  const { prefixQueries, prefixHits, promptTokens } = bench.scheduler.counters;
  assertEquals({ prefixQueries, prefixHits, promptTokens }, { prefixQueries: 25, prefixHits: 12, promptTokens: 13 });
});

Deno.test("StepScheduler evicts the end of a cached prefix before its start", () => {
  const bench = new Bench(4);
  const prompt = Int32Array.from({ length: 13 }, (_, i) => i);
  bench.add(13, 1, { prompt });
  bench.drain();
  bench.add(5, 1);
  bench.drain();
  const again = bench.add(13, 1, { prompt });
  bench.drain();
  assertEquals(again.cachedTokens, 8);
});

Deno.test("StepScheduler shares nothing between salts", () => {
  const bench = new Bench(32);
  const prompt = Int32Array.from({ length: 9 }, (_, i) => i);
  bench.add(9, 1, { prompt });
  bench.drain();
  const other = prefixSalt({ modelDigest: "m", kvType: "f16", layout: "l", tenantSalt: "other" });
  assertEquals(bench.add(9, 1, { prompt, salt: other }).status, "waiting");
  assertEquals(bench.step(), ["2:9l"]);
});

Deno.test("StepScheduler takes no cached block whose rows of logits are wanted", () => {
  const bench = new Bench(32);
  const prompt = Int32Array.from({ length: 6 }, (_, i) => i);
  bench.add(6, 1, { prompt });
  bench.drain();
  bench.add(6, 1, { prompt, promptRows: true });
  assertEquals(bench.step(), ["2:6a"]);
});

Deno.test("StepScheduler starts siblings when their leader's prompt is in the cache", () => {
  const bench = new Bench(32);
  const prompt = Int32Array.from({ length: 20 }, (_, i) => i);
  const leader = bench.add(20, 3, { prompt });
  const sibling = bench.add(20, 3, { prompt, leader });
  assertEquals(bench.step(), ["1:16n"]);
  assertEquals(bench.step(), ["1:4l"]);
  assertEquals(bench.step(), ["1:1l", "2:4l"]);
  assertEquals(sibling.blocks.slice(0, 4), leader.blocks.slice(0, 4));
  bench.drain();
});

Deno.test("StepScheduler starts siblings whose leader ended early", () => {
  const bench = new Bench(32);
  const leader = bench.add(20, 3);
  bench.add(20, 1, { leader });
  bench.step();
  bench.scheduler.end(leader, "cancelled");
  assertEquals(bench.step(), ["2:16n"]);
});

Deno.test("StepScheduler.schedule() carries out a policy's plan", () => {
  const bench = new Bench(32);
  bench.add(6, 5);
  const second = bench.add(6, 5);
  bench.policy.planner = () => ({ tokens: new Map([[2, 3]]), preempt: [] });
  assertEquals(bench.step(), ["2:3n"]);
  bench.policy.planner = () => ({ tokens: new Map([[1, 6]]), preempt: [2] });
  assertEquals(bench.step(), ["1:6l"]);
  assertEquals([second.status, second.preemptions], ["waiting", 1]);
  assertEquals(bench.scheduler.counters.refusedPlans, 0);
});

Deno.test("StepScheduler.schedule() falls back to its own plan where a policy's is invalid", () => {
  const bench = new Bench(32);
  bench.add(6, 5);
  bench.policy.planner = () => ({ tokens: new Map([[9, 1]]), preempt: [] });
  assertEquals(bench.step(), ["1:6l"]);
  assertEquals(bench.scheduler.counters.refusedPlans, 1);
});

Deno.test("StepScheduler overrules a plan that starves a running sequence or the queue", () => {
  const bench = new Bench(32, { starvationMs: 5 });
  const [favourite, running] = [bench.add(2, 200), bench.add(2, 200)];
  bench.step();
  const waiting = bench.add(2, 200);
  bench.policy.planner = () => ({ tokens: new Map([[favourite.id, 1]]), preempt: [] });
  for (let i = 0; i < 30; i++) bench.step();
  assertGreater(running.generated, 2);
  assertGreater(waiting.generated, 2);
  assertGreater(favourite.generated, running.generated);
});

Deno.test("StepScheduler.canEverFit() counts every token but the last generated one", () => {
  const { scheduler } = new Bench(2);
  assert(scheduler.canEverFit(6, 3));
  assert(!scheduler.canEverFit(6, 4));
  assert(scheduler.canEverFit(8, 0));
  assert(!scheduler.canEverFit(9, 0));
});

Deno.test("StepScheduler refuses a batch that could not decode in one step", () => {
  assertThrows(() => new Bench(4, { maxBatch: 9 }), RangeError, "wanted maxBatch from 1 to 8");
  assertThrows(() => new Bench(4, { maxBatch: 5, mixedStepTokens: 4 }), RangeError, "wanted maxBatch from 1 to 4");
  assertThrows(() => new Bench(4, { maxBatch: 0 }), RangeError, "got 0");
});

Deno.test("StepScheduler ends every sequence under any arrivals, ranks, plans and cancellations", () => {
  const arrival = fc.record({
    gap: fc.nat(4),
    prompt: fc.integer({ min: 1, max: 20 }),
    maxTokens: fc.nat(8),
    shared: fc.boolean(),
    promptRows: fc.boolean(),
    cancelAfter: fc.option(fc.nat(12), { nil: undefined }),
  });
  const property = fc.property(
    fc.array(arrival, { maxLength: 12, size: "max" }),
    fc.infiniteStream(fc.nat(0xffff)),
    fc.record({
      blocks: fc.integer({ min: 7, max: 14 }),
      maxBatch: fc.integer({ min: 1, max: 8 }),
      plans: fc.boolean(),
      ahead: fc.boolean(),
    }),
    (arrivals, noise, { blocks, maxBatch, plans, ahead }) => {
      const bench = new Bench(blocks, { maxBatch, ahead, starvationMs: 20 });
      const draw = () => noise.next().value ?? 0;
      bench.policy.ranker = (queue) => {
        const keys = Array.from({ length: queue.length }, draw);
        return Int32Array.from(queue.id.keys()).sort((a, b) => keys[a] - keys[b]);
      };
      if (plans) {
        bench.policy.planner = ({ queue }) => {
          const pick = draw() % queue.length;
          const other = draw() % queue.length;
          return draw() % 3 === 0 ? null : {
            tokens: new Map([[queue.id[pick], 1 + draw() % 6]]),
            preempt: draw() % 2 === 0 ? [] : [queue.id[other]],
          };
        };
      }
      const live: { sequence: Sequence; cancelAtMs: number }[] = [];
      const step = () => {
        bench.step();
        for (const { sequence, cancelAtMs } of live) {
          if (sequence.status !== "ended" && bench.nowMs >= cancelAtMs) bench.scheduler.end(sequence, "cancelled");
        }
        bench.scheduler.checkIntegrity();
      };
      for (const { gap, prompt, maxTokens, shared, promptRows, cancelAfter } of arrivals) {
        for (let i = 0; i < gap; i++) step();
        const tokens = Int32Array.from({ length: prompt }, (_, i) => shared ? i : draw());
        const sequence = bench.add(prompt, maxTokens, { prompt: tokens, promptRows });
        live.push({ sequence, cancelAtMs: bench.nowMs + (cancelAfter ?? Infinity) });
      }
      for (let i = 0; live.some(({ sequence }) => sequence.status !== "ended"); i++) {
        step();
        assertLessOrEqual(i, 3_000, "the scheduler never comes to an end");
      }
      assertEquals(bench.pool.counts.owned, 0);
    },
  );
  fc.assert(property, { numRuns: 300 });
});
