import { assertEquals, assertThrows } from "@std/assert";
import { Sequence } from "../sequence.ts";
import { CAPACITY_PATIENCE_MS, DEMAND_BACKOFF_MS, MemoryDemands } from "./memory_demands.ts";

function sequence(id: number, running: boolean): Sequence {
  const one = new Sequence({
    id,
    prompt: Int32Array.of(1, 2, 3),
    maxTokens: 5,
    arrivedMs: 0,
    salt: new Uint8Array(32),
    blockTokens: 4,
  });
  if (running) one.advance({ kind: "start", blocks: [], cachedTokens: 0, atMs: 0 });
  return one;
}

/** Demands on a clock. */
function open() {
  const clock = { ms: 0 };
  return { clock, demands: new MemoryDemands(() => clock.ms) };
}

const START = { segments: 4, localSegments: 2, reason: "start" } as const;

Deno.test("MemoryDemands.list() has the most urgent first, and what is left of each", () => {
  const { demands } = open();
  const [waiting, growing, broken] = [sequence(1, false), sequence(3, true), sequence(2, true)];
  demands.ask(waiting, START);
  demands.ask(growing, { ...START, reason: "grow" });
  demands.ask(broken, { ...START, reason: "repair" });
  assertEquals(demands.grant(waiting, 3)?.reason, "start");
  assertEquals(demands.list().map((demand) => [demand.sequence, demand.reason, demand.segments]), [
    [2, "repair", 4],
    [3, "grow", 4],
    [1, "start", 1],
  ]);
  assertEquals([demands.list()[2].tokens, demands.list()[2].maxTokens], [3, 7]);
  demands.checkIntegrity();
  demands.grant(waiting, 1);
  assertEquals([demands.state(waiting), demands.grant(waiting, 1), demands.size], ["none", undefined, 2]);
});

Deno.test("MemoryDemands asks again for a sequence that waits, with new numbers, after a while", () => {
  const { demands, clock } = open();
  const waiting = sequence(1, false);
  demands.ask(waiting, START);
  assertEquals(demands.refuse(waiting), true);
  demands.ask(waiting, { ...START, segments: 7 });
  assertEquals([demands.state(waiting), demands.list(), demands.grant(waiting, 1)], ["refused", [], undefined]);
  clock.ms = DEMAND_BACKOFF_MS;
  assertEquals([demands.state(waiting), demands.list()[0].segments], ["asked", 7]);
});

Deno.test("MemoryDemands keeps the refusal of a sequence that runs until the scheduler has acted on it", () => {
  const { demands, clock } = open();
  const growing = sequence(1, true);
  demands.ask(growing, { ...START, reason: "grow" });
  demands.refuse(growing);
  clock.ms = 10 * DEMAND_BACKOFF_MS;
  assertEquals([demands.state(growing), demands.list()], ["refused", []]);
  demands.drop(growing);
  assertEquals([demands.state(growing), demands.refuse(growing)], ["none", false]);
});

Deno.test("MemoryDemands.isHopeless() is patient, and starts anew when there was hope", () => {
  const { demands, clock } = open();
  const waiting = sequence(1, false);
  assertEquals(demands.isHopeless(waiting, true), false);
  clock.ms = CAPACITY_PATIENCE_MS - 1;
  assertEquals(demands.isHopeless(waiting, true), false);
  assertEquals(demands.isHopeless(waiting, false), false);
  clock.ms += 1;
  assertEquals(demands.isHopeless(waiting, true), false);
  clock.ms += CAPACITY_PATIENCE_MS;
  assertEquals(demands.isHopeless(waiting, true), true);
});

Deno.test("MemoryDemands.checkIntegrity() refuses a demand that is not its sequence's", () => {
  const { demands } = open();
  const waiting = sequence(1, false);
  demands.ask(waiting, { ...START, reason: "grow" });
  assertThrows(() => demands.checkIntegrity(), Error, "sequence 1 is waiting, it asks for room to grow");
});
