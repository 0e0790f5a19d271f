/**
 * An example of a scheduler policy: the shortest job first, with a cap on the work that may wait.
 *
 *     deno task start --scheduler ./examples/shortest_first.ts
 *
 * @module
 */
import type { SchedulerPlugin } from "@infinite-llm/runtime/plugin";

/** Options of the policy. */
export interface ShortestFirstConfig {
  /** Waiting this long makes a job as attractive as one that is this many tokens shorter: tokens a second. */
  readonly agingTokensPerSecond: number;
  /** Most prompt and output tokens of one request that are accepted while others wait. */
  readonly busyTokens: number;
}

/** What the policy remembers between calls. */
export interface ShortestFirstState {
  /** The policy's options. */
  readonly config: ShortestFirstConfig;
  /** The host's clock. */
  now(): number;
}

/** Ranks by the tokens still to compute, less the age; turns very long requests away while others wait. */
const shortestFirst: SchedulerPlugin<ShortestFirstConfig, ShortestFirstState> = {
  api: 1,
  kind: "scheduler",
  name: "shortest-first",
  version: "1.0.0",
  configSchema: {
    type: "object",
    properties: {
      agingTokensPerSecond: { type: "number", minimum: 0, default: 50 },
      busyTokens: { type: "integer", minimum: 1, default: 100_000 },
    },
    additionalProperties: false,
  },
  create: ({ config, now }) => ({ config, now }),
  admit({ config }, request, instance) {
    const tokens = request.promptTokens + request.maxTokens;
    if (instance.waiting === 0 || tokens <= config.busyTokens) return { kind: "accept" };
    return { kind: "reject", status: 429, reason: `${tokens} tokens are too many while ${instance.waiting} wait` };
  },
  rank({ config, now }, queue, out) {
    const nowMs = now();
    for (let i = 0; i < queue.length; i++) {
      const left = queue.pendingTokens[i] + queue.maxTokens[i] - queue.generatedTokens[i];
      const seconds = (nowMs - queue.arrivedMs[i]) / 1000;
      out[i] = left - config.agingTokensPerSecond * seconds;
    }
  },
};

export default shortestFirst;
