import { assertEquals } from "@std/assert";
import { testSchedulerPolicy } from "../conformance.ts";
import { SchedulerHost } from "../host.ts";
import type { QueueView } from "../types.ts";
import { priority } from "./priority.ts";

testSchedulerPolicy({ plugin: priority });

/** Sequences 0, 1, … by priority and arrival. */
function queueOf(...rows: (readonly [priority: number, arrivedMs: number])[]): QueueView {
  const zeros = () => new Int32Array(rows.length);
  return {
    length: rows.length,
    id: Int32Array.from(rows, (_, i) => i),
    promptTokens: zeros().fill(5),
    pendingTokens: zeros().fill(5),
    generatedTokens: zeros(),
    maxTokens: zeros().fill(5),
    priority: Float64Array.from(rows, ([level]) => level),
    arrivedMs: Float64Array.from(rows, ([, arrivedMs]) => arrivedMs),
    blocks: zeros(),
    preemptions: zeros(),
    running: new Uint8Array(rows.length),
  };
}

async function rankAt(nowMs: number, queue: QueueView, config = {}): Promise<number[]> {
  using host = await SchedulerHost.load("builtin:priority", {
    config,
    now: () => nowMs,
    random: () => 0,
    log: () => {},
  });
  return [...host.rank(queue)];
}

Deno.test("priority.rank() puts lower numbers first and equal ones by arrival", async () => {
  assertEquals(await rankAt(10, queueOf([1, 0], [0, 9], [-1, 8], [0, 5])), [2, 3, 1, 0]);
});

Deno.test("priority.rank() counts waiting time as priority", async () => {
  const queue = queueOf([2, 0], [0, 19_000]);
  assertEquals(await rankAt(19_000, queue), [1, 0]);
  assertEquals(await rankAt(21_000, queueOf([2, 0], [0, 20_500])), [0, 1]);
  assertEquals(await rankAt(21_000, queueOf([2, 0], [0, 20_500]), { agingMs: 0 }), [1, 0]);
});

Deno.test("priority.rank() puts everything that is overdue first, by arrival", async () => {
  const queue = queueOf([-1e300, 59_000], [5, 10], [1e9, 0], [-5, 30]);
  assertEquals(await rankAt(60_010, queue), [2, 1, 0, 3]);
  assertEquals(await rankAt(60_010, queue, { maxWaitMs: 1000 }), [2, 1, 3, 0]);
});
