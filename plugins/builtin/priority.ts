/**
 * The client's priority, lower first, with aging so that nobody waits forever.
 *
 * @module
 */
import type { PluginContext, SchedulerPlugin } from "../types.ts";

/** Options of the policy. */
export interface PriorityConfig {
  /** Waiting this long is worth one level of priority, ms; 0 turns aging off. @default {10000} */
  readonly agingMs: number;
  /** A sequence this old goes before all younger ones whatever their priority, ms. @default {60000} */
  readonly maxWaitMs: number;
}

/** Ahead of every priority a client can send. */
const OVERDUE = -Number.MAX_VALUE;

/** Ranks by priority less age; overdue sequences go first, by arrival. */
export const priority: SchedulerPlugin<PriorityConfig, PluginContext<PriorityConfig>> = {
  api: 1,
  kind: "scheduler",
  name: "priority",
  version: "1.0.0",
  configSchema: {
    type: "object",
    properties: {
      agingMs: { type: "number", minimum: 0, default: 10_000 },
      maxWaitMs: { type: "number", minimum: 0, default: 60_000 },
    },
    additionalProperties: false,
  },
  create: (context) => context,
  rank({ config, now }, queue, out) {
    const nowMs = now();
    for (let i = 0; i < queue.length; i++) {
      const ageMs = nowMs - queue.arrivedMs[i];
      const levels = config.agingMs > 0 ? ageMs / config.agingMs : 0;
      out[i] = ageMs >= config.maxWaitMs ? OVERDUE : queue.priority[i] - levels;
    }
  },
};

export default priority;
