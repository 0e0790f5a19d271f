import { assertEquals } from "@std/assert";
import { SchedulerHost } from "../../plugins/host.ts";
import { fcfs } from "../../plugins/builtin/fcfs.ts";
import type { StepView } from "../../plugins/types.ts";
import { HoldingPolicy } from "./holding_policy.ts";

/** Sequences 0 and 1 decode, 2 prefills, 3 waits. */
const STEP: StepView = {
  tokenBudget: 64,
  maxSequences: 8,
  instance: { waiting: 1, running: 3, totalBlocks: 64, availableBlocks: 32, blockTokens: 16 },
  queue: {
    length: 4,
    id: Int32Array.of(10, 11, 12, 13),
    promptTokens: Int32Array.of(4, 4, 40, 4),
    pendingTokens: Int32Array.of(0, 0, 20, 4),
    generatedTokens: Int32Array.of(1, 1, 0, 0),
    maxTokens: Int32Array.of(9, 9, 9, 9),
    priority: new Float64Array(4),
    arrivedMs: Float64Array.of(1, 2, 3, 4),
    blocks: Int32Array.of(1, 1, 3, 0),
    preemptions: new Int32Array(4),
    running: Uint8Array.of(1, 1, 1, 0),
  },
};

Deno.test("HoldingPolicy.plan() gives a token to whatever decodes and is not held, and has no plan without", async () => {
  using host = await SchedulerHost.open(fcfs, { now: () => 0, random: () => 0, log: () => {} });
  const policy = new HoldingPolicy(host);
  assertEquals(policy.plan(STEP), host.plan(STEP));
  policy.held.add(10);
  assertEquals(policy.plan(STEP), { tokens: new Map([[11, 1]]), preempt: [] });
  policy.held.add(11);
  assertEquals(policy.plan(STEP), host.plan(STEP));
});
