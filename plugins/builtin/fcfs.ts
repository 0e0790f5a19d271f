/**
 * First come, first served: the default policy, and what stands in for a policy that fails.
 *
 * @module
 */
import type { SchedulerPlugin } from "../types.ts";

/** Ranks by arrival. */
export const fcfs: SchedulerPlugin = {
  api: 1,
  kind: "scheduler",
  name: "fcfs",
  version: "1.0.0",
  create: () => undefined,
  rank(_state, queue, out) {
    out.set(queue.arrivedMs);
  },
};

export default fcfs;
