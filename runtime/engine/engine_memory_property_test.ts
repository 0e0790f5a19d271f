import { assertEquals, assertGreater, assertLessOrEqual } from "@std/assert";
import fc from "fast-check";
import type { BlockId } from "../../scheduler/block_pool.ts";
import type { EngineRequest } from "./request.ts";
import { TestCluster } from "./test_cluster.ts";
import { type Transcript, undisturbed } from "./test_engine.ts";

interface Arrival {
  readonly gap: number;
  readonly shared: number;
  readonly own: number[];
  readonly maxTokens: number;
  readonly n: number;
  readonly greedy: boolean;
  readonly promptLogprobs: boolean;
  readonly cancelAfter: number | undefined;
}

const arrival: fc.Arbitrary<Arrival> = fc.record({
  gap: fc.nat(12),
  shared: fc.nat(12).map((blocks) => 4 * blocks),
  own: fc.oneof(
    { weight: 3, arbitrary: fc.array(fc.nat(96), { minLength: 1, maxLength: 8 }) },
    { weight: 2, arbitrary: fc.array(fc.nat(96), { minLength: 30, maxLength: 90, size: "max" }) },
  ),
  maxTokens: fc.nat(40),
  n: fc.integer({ min: 1, max: 2 }),
  greedy: fc.boolean(),
  promptLogprobs: fc.boolean(),
  cancelAfter: fc.option(fc.nat(120), { nil: undefined, freq: 4 }),
});

function toRequest(one: Arrival, id: string): EngineRequest {
  const prefix = Array.from({ length: one.shared }, (_, i) => i);
  return {
    id,
    prompt: [...prefix, ...one.own],
    maxTokens: one.maxTokens,
    n: one.n,
    sampling: {
      ...(one.greedy ? { temperature: 0 } : { seed: one.own.length, topK: 20 }),
      ...(one.promptLogprobs && { promptLogprobs: 1 }),
    },
  };
}

/** Everything that can happen between two steps, or during one. */
class Driver {
  readonly cluster: TestCluster;
  readonly #noise: () => number;
  readonly #lent: BlockId[] = [];
  losses = 0;

  constructor(cluster: TestCluster, noise: () => number) {
    this.cluster = cluster;
    this.#noise = noise;
  }

  draw(below: number): number {
    return this.#noise() % below;
  }

  /** One thing happens, or nothing. */
  act(): void {
    const { cluster } = this;
    const { engine, device } = cluster.test;
    const { memory } = engine;
    switch (this.draw(25)) {
      case 0:
      case 1:
      case 2:
      case 3: {
        const [demand] = memory.demands();
        if (demand !== undefined && !cluster.grant(demand)) memory.refuse(demand.sequence);
        break;
      }
      case 4: {
        const demands = memory.demands();
        if (demands.length > 0) memory.refuse(demands[this.draw(demands.length)].sequence);
        break;
      }
      case 5:
      case 6:
      case 7:
      case 8:
        cluster.startMove();
        break;
      case 9:
      case 10:
      case 11:
      case 12:
      case 13:
        if (cluster.moves.length > 0) cluster.finishMove(this.draw(cluster.moves.length));
        break;
      case 14:
        if (cluster.moves.length > 0) cluster.finishMove(this.draw(cluster.moves.length), false);
        break;
      case 15:
        if (this.draw(4) === 0) this.losses += cluster.kill(cluster.holders[this.draw(cluster.holders.length)]);
        break;
      case 16: {
        const slots = [...memory.borrowed().values()].flat();
        if (slots.length > 0 && this.draw(3) === 0) this.losses += cluster.revoke(slots[this.draw(slots.length)]);
        break;
      }
      case 17:
      case 18: {
        const held = [...memory.borrowed().keys()].flatMap((incarnation) => memory.held(incarnation));
        if (held.length === 0) break;
        const { slot } = held[this.draw(held.length)];
        const to = this.draw(2) === 0 ? undefined : cluster.lend(1)?.[0];
        const move = memory.relocate(slot, to);
        if (move !== undefined) cluster.moves.push(move);
        else if (to !== undefined) cluster.forget([to]);
        break;
      }
      case 19: {
        const placed = memory.placements();
        if (placed.length === 0) break;
        const { sequence } = placed[this.draw(placed.length)];
        const slots = cluster.lend(1 + this.draw(3));
        if (slots !== undefined) memory.grant(sequence, slots);
        break;
      }
      case 20: {
        const blocks = engine.pool.lend(Math.min(engine.pool.available, this.draw(4)));
        // Whoever borrows writes at once.
        for (const block of blocks) device.writeBlock(block, new Uint8Array(device.blockBytes).fill(7));
        this.#lent.push(...blocks);
        break;
      }
      case 21:
        this.giveBack();
        break;
      case 22: {
        const placed = memory.placements();
        if (placed.length > 0) memory.pin(placed[this.draw(placed.length)].sequence, this.draw(2) === 0);
        break;
      }
      case 23: {
        const incarnations = [...memory.borrowed().keys()];
        if (incarnations.length === 0 || this.draw(2) === 0) break;
        const wanted = 1 + this.draw(3);
        const before = cluster.granted;
        const given = memory.giveBack(incarnations[this.draw(incarnations.length)], wanted);
        assertEquals(cluster.granted, before - given);
        assertLessOrEqual(given, wanted);
        break;
      }
      default:
        break;
    }
  }

  giveBack(): void {
    const blocks = this.#lent.splice(0);
    this.cluster.test.engine.pool.quarantine(blocks);
    this.cluster.test.engine.pool.settle(blocks);
  }
}

Deno.test("Engine gives every request its undisturbed tokens under any grants, moves, losses and cancellations", () => {
  const seen = { moved: 0, losses: 0, repairs: 0, lostSteps: 0, preemptions: 0, hits: 0, done: 0, ahead: 0 };
  const property = fc.property(
    fc.array(arrival, { minLength: 1, maxLength: 7, size: "max" }),
    fc.infiniteStream(fc.nat(0xffffff)),
    fc.record({
      blocks: fc.integer({ min: 6, max: 24 }),
      maxStepTokens: fc.integer({ min: 6, max: 24 }),
      maxLogitRows: fc.integer({ min: 6, max: 16 }),
      maxBatch: fc.integer({ min: 1, max: 6 }),
      holders: fc.array(fc.integer({ min: 0, max: 14 }), { minLength: 1, maxLength: 3 }),
      prefixCache: fc.boolean(),
      sync: fc.boolean(),
      ahead: fc.boolean(),
      plans: fc.boolean(),
    }),
    (arrivals, noise, sizes) => {
      const cluster = new TestCluster(sizes);
      cluster.sync = sizes.sync;
      const { test } = cluster;
      const { engine } = test;
      const driver = new Driver(cluster, () => noise.next().value ?? 0);
      test.policy.ranker = (queue) => {
        const keys = Array.from({ length: queue.length }, () => driver.draw(0xffff));
        return Int32Array.from(queue.id.keys()).sort((a, b) => keys[a] - keys[b]);
      };
      if (sizes.plans) {
        test.policy.planner = ({ queue }) => {
          const [pick, other] = [driver.draw(queue.length), driver.draw(queue.length)];
          return driver.draw(3) === 0 ? null : {
            tokens: new Map([[queue.id[pick], 1 + driver.draw(6)]]),
            preempt: driver.draw(4) === 0 ? [queue.id[other]] : [],
          };
        };
      }
      const live: { request: EngineRequest; transcript: Transcript; cancelAtMs: number }[] = [];
      const tick = () => {
        if (!cluster.stepping) cluster.step();
        else if (driver.draw(2) === 0) cluster.finishStep(driver.draw(2) === 0);
        for (let acts = driver.draw(4); acts > 0; acts--) {
          driver.act();
          engine.checkIntegrity();
        }
        for (const { request, cancelAtMs } of live) if (test.nowMs >= cancelAtMs) engine.cancel(request.id);
        test.nowMs += 1 + driver.draw(40);
        engine.checkIntegrity();
      };
      for (const [i, one] of arrivals.entries()) {
        for (let gap = 0; gap < one.gap; gap++) tick();
        const request = toRequest(one, `${i}`);
        if (request.prompt.length + Math.max(0, request.maxTokens - 1) > engine.reachableModelLen) continue;
        live.push({ request, transcript: test.add(request), cancelAtMs: test.nowMs + (one.cancelAfter ?? Infinity) });
      }
      for (let ticks = 0; engine.busy && ticks < 300; ticks++) tick();
      driver.giveBack();
      test.policy.planner = () => null;
      cluster.drain();
      seen.moved += cluster.moved;
      seen.losses += driver.losses;
      seen.ahead += test.device.foreseen.right;
      const { repairs, lostSteps, preemptions, prefixHits } = engine.stats();
      seen.repairs += repairs;
      seen.lostSteps += lostSteps;
      seen.preemptions += preemptions;
      seen.hits += prefixHits;
      for (const { request, transcript } of live) {
        const alone = undisturbed(request);
        transcript.ids.forEach((ids, choice) => assertEquals(ids, alone.ids[choice].slice(0, ids.length)));
        if (transcript.end?.error !== undefined) {
          assertEquals(transcript.end.error.code, "cluster_capacity");
        }
        if (transcript.choiceEnds.some(({ reason }) => reason === "cancelled" || reason === "error")) continue;
        seen.done++;
        assertEquals(transcript.ids, alone.ids);
        assertEquals(transcript.texts, alone.texts);
        assertEquals(transcript.prompt, alone.prompt);
        assertEquals(transcript.choiceEnds, alone.choiceEnds);
      }
    },
  );
  fc.assert(property, { numRuns: 120 });
  assertGreater(seen.done, 50);
  assertGreater(seen.moved, 500);
  assertGreater(seen.losses, 50);
  assertGreater(seen.repairs, 50);
  assertGreater(seen.lostSteps, 3);
  assertGreater(seen.preemptions, 10);
  assertGreater(seen.hits, 100);
  assertGreater(seen.ahead, 100);
});
