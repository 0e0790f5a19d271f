import { assert, assertEquals, assertGreater, assertLess, assertStringIncludes, assertThrows } from "@std/assert";
import { CAPACITY_PATIENCE_MS, DEMAND_BACKOFF_MS } from "../../scheduler/lending/memory_demands.ts";
import { CapacityError, type EngineRequest } from "./request.ts";
import { TestCluster } from "./test_cluster.ts";
import { testGreedy } from "./test_device.ts";

function tokens(length: number, first = 0): number[] {
  return Array.from({ length }, (_, i) => (first + 7 * i) % 94);
}

function greedy(id: string, prompt: number[], maxTokens: number): EngineRequest {
  return { id, prompt, maxTokens, sampling: { temperature: 0 } };
}

/** Steps and serves until `until` holds. */
function runUntil(cluster: TestCluster, until: () => boolean): void {
  for (let steps = 0; !until(); steps++) {
    assertLess(steps, 500, "it never comes to that");
    cluster.step();
    cluster.serve();
    cluster.test.nowMs += 50;
    cluster.test.engine.checkIntegrity();
  }
}

Deno.test("Engine serves a prompt that is larger than its pool and prefills while the KV moves out", () => {
  const cluster = new TestCluster({ blocks: 10, holders: [8, 8] });
  const prompt = tokens(120);
  const transcript = cluster.test.add(greedy("long", prompt, 20));
  assertEquals(cluster.step(), false);
  const [demand, ...others] = cluster.test.engine.memory.demands();
  assertEquals([demand.reason, demand.tokens, demand.maxTokens, others.length], ["start", 120, 139, 0]);
  assert(cluster.grant(demand));
  assertEquals(cluster.step(), true, "it starts before anything has moved");
  cluster.drain();
  assertEquals(transcript.ids[0], testGreedy(prompt, 20));
  assertGreater(cluster.moved, 10);
});

Deno.test("Engine waits for its own moves when its local blocks are full, and then goes on", () => {
  const cluster = new TestCluster({ blocks: 6, holders: [20] });
  const transcript = cluster.test.add(greedy("long", tokens(60), 4));
  cluster.step();
  cluster.grant(cluster.test.engine.memory.demands()[0]);
  while (cluster.step());
  assertEquals(cluster.test.engine.busy, true);
  assertEquals(cluster.test.engine.waitsForMemory, true);
  assertEquals(transcript.ids[0], []);
  assert(cluster.startMove());
  assertEquals(cluster.step(), false, "the segment is still on its way");
  cluster.finishMove(0);
  assertEquals(cluster.step(), true);
  cluster.drain();
  assertEquals(transcript.ids[0], testGreedy(tokens(60), 4));
});

Deno.test("Engine lets short requests overtake a long one that waits for memory elsewhere", () => {
  const cluster = new TestCluster({ blocks: 10, holders: [12] });
  const long = cluster.test.add(greedy("long", tokens(90), 4));
  const short = cluster.test.add(greedy("short", tokens(5, 3), 3));
  for (let i = 0; i < 4; i++) cluster.step();
  assertEquals(short.ids[0], testGreedy(tokens(5, 3), 3));
  cluster.drain();
  assertEquals(long.ids[0], testGreedy(tokens(90), 4));
});

Deno.test("Engine asks again a while after a refusal, and gives slots back with it", () => {
  const cluster = new TestCluster({ blocks: 10, holders: [12] });
  cluster.test.add(greedy("long", tokens(90), 4));
  const { memory } = cluster.test.engine;
  cluster.step();
  const [{ sequence }] = memory.demands();
  memory.grant(sequence, cluster.lend(1) ?? []);
  assertEquals(cluster.granted, 1);
  memory.refuse(sequence);
  assertEquals([cluster.granted, memory.demands().length], [0, 0]);
  cluster.test.nowMs += DEMAND_BACKOFF_MS - 1;
  cluster.step();
  assertEquals(memory.demands().length, 0);
  cluster.test.nowMs += 1;
  assertEquals(memory.demands().length, 1);
  cluster.drain();
});

Deno.test("Engine gives slots for a request that has ended back at once", () => {
  const cluster = new TestCluster({ blocks: 10, holders: [12] });
  cluster.test.add(greedy("long", tokens(90), 4));
  cluster.step();
  const { memory } = cluster.test.engine;
  const [{ sequence }] = memory.demands();
  cluster.test.engine.cancel("long");
  memory.grant(sequence, cluster.lend(3) ?? []);
  cluster.checkEmpty();
});

Deno.test("Engine repairs exactly the lost segments and goes on, with every token once", () => {
  const cluster = new TestCluster({ blocks: 12, maxStepTokens: 16, holders: [6, 6] });
  const transcript = cluster.test.add(greedy("long", tokens(100), 30));
  runUntil(cluster, () => transcript.ids[0].length === 10);
  const { engine } = cluster.test;
  const tokensBefore = transcript.ids[0].length;
  const lost = cluster.kill(cluster.holders[1]);
  assertGreater(lost, 2);
  const { promptTokens } = engine.stats();
  const positions: number[] = [];
  cluster.test.device.beforeStep = (batch) => positions.push(...batch.map(({ position }) => position));
  cluster.drain();
  assertEquals(transcript.ids[0], testGreedy(tokens(100), 30));
  const { repairs, repairedTokens, promptTokens: after, preemptions } = engine.stats();
  assertEquals([repairs, repairedTokens, after, preemptions], [lost, 8 * lost, promptTokens, 0]);
  assertGreater(tokensBefore, 0);
  assertEquals(positions.filter((position) => position < 100).every((position) => position % 8 === 0), true);
});

Deno.test("Engine repairs without computing what the pool still has of the lost segments", () => {
  const cluster = new TestCluster({ blocks: 40, maxStepTokens: 16, holders: [8] });
  const transcript = cluster.test.add(greedy("a", tokens(60), 10));
  runUntil(cluster, () => transcript.ids[0].length === 3);
  const { engine } = cluster.test;
  const [{ sequence }] = engine.memory.placements();
  engine.memory.grant(sequence, cluster.lend(3) ?? []);
  cluster.serve();
  assertEquals(engine.stats().blocks.borrowed, 6);
  assertEquals(cluster.kill(cluster.holders[0]), 3);
  cluster.drain();
  assertEquals([engine.stats().repairedTokens, transcript.ids[0]], [0, testGreedy(tokens(60), 10)]);
});

/** Takes everything out of the prefix cache. */
function emptyCache({ test: { engine: { pool } } }: TestCluster): void {
  while (pool.evict());
}

Deno.test("Engine shares borrowed segments, and one of the sharers repairs them for all", () => {
  const cluster = new TestCluster({ blocks: 30, maxStepTokens: 16, holders: [12] });
  // The last token is always computed, so the last segment is not shared.
  const prompt = tokens(48);
  const first = cluster.test.add(greedy("first", prompt, 40));
  runUntil(cluster, () => first.ids[0].length === 2);
  const { engine } = cluster.test;
  const [{ sequence }] = engine.memory.placements();
  engine.memory.grant(sequence, cluster.lend(6) ?? []);
  cluster.serve();
  emptyCache(cluster);
  const again = cluster.test.add(greedy("again", prompt, 12));
  cluster.step();
  assertEquals(engine.memory.held("0").map(({ sharers }) => sharers), [2, 2, 2, 2, 2, 1]);
  emptyCache(cluster);
  cluster.kill(cluster.holders[0]);
  cluster.drain();
  assertEquals([first.ids[0], again.ids[0]], [testGreedy(prompt, 40), testGreedy(prompt, 12)]);
  assertEquals(again.end?.usage.cachedTokens, 40);
  assertEquals(engine.stats().repairedTokens, 40, "the last segment is one that the other computed for itself");
});

Deno.test("Engine finds no borrowed segment after its last live request", () => {
  const cluster = new TestCluster({ blocks: 30, holders: [12] });
  const first = cluster.test.add(greedy("first", tokens(49), 4));
  runUntil(cluster, () => first.ids[0].length === 1);
  const { memory } = cluster.test.engine;
  memory.grant(memory.placements()[0].sequence, cluster.lend(6) ?? []);
  cluster.drain();
  emptyCache(cluster);
  const again = cluster.test.add(greedy("again", tokens(49), 4));
  cluster.drain();
  assertEquals([again.end?.usage.cachedTokens, again.ids[0]], [0, testGreedy(tokens(49), 4)]);
});

Deno.test("Engine.cancel() during a step frees its blocks when the step is over, and ends the request once", () => {
  const cluster = new TestCluster({ blocks: 12, holders: [] });
  cluster.sync = false;
  const transcript = cluster.test.add(greedy("a", tokens(20), 9));
  assertEquals(cluster.step(), undefined);
  const { engine } = cluster.test;
  engine.cancel("a");
  engine.cancel("a");
  engine.checkIntegrity();
  assertEquals(transcript.events.map(({ kind }) => kind), ["choice-end", "end"]);
  assertEquals([engine.busy, engine.stats().blocks.owned], [false, 5]);
  const later = cluster.test.add(greedy("a", tokens(3), 1));
  assertThrows(() => cluster.step(), Error, "another one is under way");
  cluster.finishStep();
  assertEquals(engine.stats().blocks.owned, 0);
  cluster.drain();
  assertEquals([later.ids[0], transcript.events.length], [testGreedy(tokens(3), 1), 2]);
});

Deno.test("Engine.step() says when its runner has not finished", () => {
  const cluster = new TestCluster({ blocks: 12, holders: [] });
  cluster.sync = false;
  cluster.test.add(greedy("a", tokens(4), 2));
  assertThrows(() => cluster.test.engine.step(), Error, "the runner has not finished");
  cluster.drain();
});

Deno.test("Engine counts nothing of a step that lost what it needed", () => {
  const cluster = new TestCluster({ blocks: 10, holders: [12] });
  const transcript = cluster.test.add(greedy("a", tokens(60), 20));
  runUntil(cluster, () => transcript.ids[0].length === 5);
  cluster.sync = false;
  cluster.step();
  assertGreater(cluster.kill(cluster.holders[0]), 0);
  cluster.finishStep();
  assertEquals([transcript.ids[0].length, cluster.test.engine.stats().lostSteps], [5, 1]);
  cluster.drain();
  assertEquals(transcript.ids[0], testGreedy(tokens(60), 20));
});

Deno.test("Engine changes no table of a step under way when a move ends", () => {
  const cluster = new TestCluster({ blocks: 10, holders: [12] });
  const transcript = cluster.test.add(greedy("a", tokens(60), 20));
  runUntil(cluster, () => transcript.ids[0].length === 5);
  const { memory } = cluster.test.engine;
  cluster.sync = false;
  cluster.step();
  const [held] = memory.held("0");
  const move = memory.relocate(held.slot, cluster.lend(1)?.[0]);
  assert(move !== undefined);
  assertEquals(memory.relocate(held.slot), undefined, "it is on its way already");
  cluster.moves.push(move);
  cluster.finishMove(0);
  assertEquals(memory.held("0")[0].slot, held.slot);
  cluster.finishStep();
  assert(memory.held("0").every(({ slot }) => slot !== held.slot));
  cluster.drain();
  assertEquals(transcript.ids[0], testGreedy(tokens(60), 20));
});

Deno.test("Engine keeps a pinned request where it is while it can go on", () => {
  const cluster = new TestCluster({ blocks: 40, holders: [12] });
  const transcript = cluster.test.add(greedy("a", tokens(60), 20));
  runUntil(cluster, () => transcript.ids[0].length === 5);
  const { memory } = cluster.test.engine;
  const [{ sequence }] = memory.placements();
  assertEquals([memory.pin(sequence, true), memory.pin(99, true)], [true, false]);
  memory.grant(sequence, cluster.lend(2) ?? []);
  assertEquals([memory.nextMove(), memory.placements()[0].pinned], [undefined, true]);
  memory.pin(sequence, false);
  assert(cluster.startMove());
  cluster.drain();
});

Deno.test("Engine gives reserved slots back that it has not used, and asks again when it needs them", () => {
  const cluster = new TestCluster({ blocks: 10, holders: [12] });
  const transcript = cluster.test.add(greedy("a", tokens(90), 4));
  cluster.step();
  const { memory } = cluster.test.engine;
  cluster.grant(memory.demands()[0]);
  cluster.step();
  const { granted } = cluster;
  assertEquals([memory.giveBack("0", 3), memory.giveBack("1", 3), cluster.granted], [3, 0, granted - 3]);
  cluster.test.engine.checkIntegrity();
  cluster.drain();
  assertEquals(transcript.ids[0], testGreedy(tokens(90), 4));
});

Deno.test("Engine tells where the segments of a request lie", () => {
  const cluster = new TestCluster({ blocks: 40, holders: [2, 12] });
  const transcript = cluster.test.add(greedy("a", tokens(60), 20));
  runUntil(cluster, () => transcript.ids[0].length === 1);
  const { memory } = cluster.test.engine;
  const [{ sequence }] = memory.placements();
  const startMs = memory.placements()[0].ranges[0].sinceMs;
  memory.grant(sequence, cluster.lend(3) ?? []);
  const movedMs = cluster.test.nowMs;
  cluster.serve();
  assertEquals(memory.placements(), [{
    sequence,
    length: 61,
    running: true,
    pinned: false,
    ranges: [
      { from: 0, to: 2, creditor: "holder-0", blocks: 4, sinceMs: movedMs },
      { from: 2, to: 3, creditor: "holder-1", blocks: 2, sinceMs: movedMs },
      { from: 3, to: 8, blocks: 9, sinceMs: startMs },
    ],
  }]);
  assertEquals([memory.borrowedBlocks, cluster.test.engine.stats().blocks.borrowed], [6, 6]);
  cluster.drain();
});

Deno.test("Engine grows beyond its promise, and preempts itself where nobody lends", () => {
  const cluster = new TestCluster({ blocks: 6, holders: [20], growthTokens: 4 });
  const transcript = cluster.test.add(greedy("a", tokens(40), 60));
  cluster.drain();
  assertEquals(transcript.ids[0], testGreedy(tokens(40), 60));
  assertEquals(cluster.test.engine.stats().preemptions, 0);

  const refusing = new TestCluster({ blocks: 6, holders: [20], growthTokens: 4 });
  const other = refusing.test.add(greedy("a", tokens(40), 60));
  const { engine } = refusing.test;
  for (let steps = 0; engine.stats().preemptions === 0; steps++) {
    assertLess(steps, 500);
    refusing.step();
    for (const demand of engine.memory.demands()) {
      if (demand.reason === "grow") engine.memory.refuse(demand.sequence);
      else refusing.grant(demand);
    }
    while (refusing.startMove()) refusing.finishMove(0);
    engine.checkIntegrity();
  }
  assertEquals(engine.stats().blocks.owned, 0);
  refusing.drain();
  assertEquals(other.ids[0], testGreedy(tokens(40), 60));
});

Deno.test("Engine ends a request that is larger than everything within reach, after a while", () => {
  const cluster = new TestCluster({ blocks: 10, holders: [12] });
  const transcript = cluster.test.add(greedy("long", tokens(90), 9));
  runUntil(cluster, () => transcript.ids[0].length === 3);
  const taken = cluster.holders[0];
  cluster.kill(taken);
  // Somebody else has all of it now.
  cluster.lend(12);
  const sinceMs = cluster.test.nowMs;
  for (let steps = 0; cluster.test.engine.busy; steps++) {
    assertLess(steps, 1_000);
    cluster.step();
    cluster.serve();
    cluster.test.nowMs += 50;
    cluster.test.engine.checkIntegrity();
  }
  assertEquals(transcript.end?.error?.code, "cluster_capacity");
  assertStringIncludes(transcript.end?.error?.message ?? "", "exceed the 40 that can be reached now");
  assertGreater(cluster.test.nowMs - sinceMs, CAPACITY_PATIENCE_MS);
  assertEquals(transcript.ids[0], testGreedy(tokens(90), 9).slice(0, transcript.ids[0].length));
});

Deno.test("Engine lets a request wait that fits what there is to borrow, but not beside what others have borrowed", () => {
  const cluster: TestCluster = new TestCluster({ blocks: 10, holders: [12], capacity: () => 12 });
  const others = cluster.lend(12) ?? [];
  const transcript = cluster.test.add(greedy("long", tokens(90), 9));
  for (let steps = 0; steps < 400; steps++) {
    cluster.step();
    cluster.serve();
    cluster.test.nowMs += 50;
  }
  assertEquals(transcript.end, undefined, "it was given up although others will end");
  assertGreater(400 * 50, CAPACITY_PATIENCE_MS);
  cluster.forget(others);
  cluster.drain();
  assertEquals(transcript.ids[0], testGreedy(tokens(90), 9));
});

Deno.test("Engine.add() accepts what can be reached now, and names both limits where it refuses", () => {
  const cluster = new TestCluster({ blocks: 10, holders: [5], maxModelLen: 100 });
  const { engine } = cluster.test;
  assertEquals([engine.reachableModelLen, engine.info.maxModelLen], [80, 100]);
  const error = assertThrows(() => cluster.test.add(greedy("a", tokens(70), 12)), CapacityError);
  assertEquals(error.code, "context_length_exceeded");
  assertStringIncludes(error.message, "80 can be reached now (longest context 100)");
  const transcript = cluster.test.add(greedy("a", tokens(70), 11));
  assertEquals(engine.waitingBlocks, 18);
  cluster.drain();
  assertEquals(transcript.ids[0], testGreedy(tokens(70), 11));
});

Deno.test("Engine refuses segments that are not made of whole blocks", () => {
  assertThrows(() => new TestCluster({ blocks: 10, holders: [], segmentTokens: 6 }), RangeError, "got 6");
});
