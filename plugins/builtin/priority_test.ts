import { assertEquals } from "@std/assert";
import { testSchedulerPolicy } from "../conformance.ts";
import { SchedulerHost } from "../host.ts";
import { queueOf } from "../test_views.ts";
import type { QueueView } from "../types.ts";
import { priority } from "./priority.ts";

testSchedulerPolicy({ plugin: priority });

/** Sequences 0, 1, … by priority and arrival. */
function rowsOf(...rows: readonly (readonly [priority: number, arrivedMs: number])[]): QueueView {
  return queueOf(...rows.map(([priority, arrivedMs], id) => ({ id, priority, arrivedMs })));
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
  assertEquals(await rankAt(10, rowsOf([1, 0], [0, 9], [-1, 8], [0, 5])), [2, 3, 1, 0]);
});

Deno.test("priority.rank() counts waiting time as priority", async () => {
  const queue = rowsOf([2, 0], [0, 19_000]);
  assertEquals(await rankAt(19_000, queue), [1, 0]);
  assertEquals(await rankAt(21_000, rowsOf([2, 0], [0, 20_500])), [0, 1]);
  assertEquals(await rankAt(21_000, rowsOf([2, 0], [0, 20_500]), { agingMs: 0 }), [1, 0]);
});

Deno.test("priority.rank() puts everything that is overdue first, by arrival", async () => {
  const queue = rowsOf([-1e300, 59_000], [5, 10], [1e9, 0], [-5, 30]);
  assertEquals(await rankAt(60_010, queue), [2, 1, 0, 3]);
  assertEquals(await rankAt(60_010, queue, { maxWaitMs: 1000 }), [2, 1, 3, 0]);
});
