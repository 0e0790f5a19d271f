/**
 * What the host's checks and copies cost per step, beside the bare policy.
 *
 *     deno bench plugins/host_bench.ts
 */
import { fcfs } from "./builtin/fcfs.ts";
import { SchedulerHost } from "./host.ts";
import { queueOf } from "./test_views.ts";
import type { SchedulerPlugin, StepView } from "./types.ts";

/** Schedules one token of each sequence. */
const decodeAll: SchedulerPlugin = {
  api: 1,
  kind: "scheduler",
  name: "decode-all",
  version: "1.0.0",
  create: () => undefined,
  plan: (_state, { queue }, out) => queue.id.forEach((id) => out.schedule(id, 1)),
};

function stepOf(length: number): StepView {
  const rows = Array.from({ length }, (_, id) => ({ id, generated: 1, running: true, arrivedMs: (id * 7919) % 1000 }));
  return {
    queue: queueOf(...rows),
    instance: { waiting: 0, running: length, totalBlocks: 8192, availableBlocks: 1000, blockTokens: 16 },
    tokenBudget: 512,
    maxSequences: 512,
  };
}

const services = { now: () => performance.now(), random: Math.random, log: console.error };
const ranking = await SchedulerHost.open(fcfs, services);
const planning = await SchedulerHost.open(decodeAll, services);

for (const length of [8, 64, 512]) {
  const step = stepOf(length);
  const ranks = new Float64Array(length);
  Deno.bench("bare", { group: `rank of ${length}`, baseline: true }, () => {
    fcfs.rank?.(undefined, step.queue, ranks);
  });
  Deno.bench("host, sorted", { group: `rank of ${length}` }, () => {
    ranking.rank(step.queue);
  });
  Deno.bench("bare", { group: `plan of ${length}`, baseline: true }, () => {
    const tokens = new Map<number, number>();
    decodeAll.plan?.(undefined, step, { schedule: (id, count) => void tokens.set(id, count), preempt: () => {} });
  });
  Deno.bench("host", { group: `plan of ${length}` }, () => {
    planning.plan(step);
  });
}
