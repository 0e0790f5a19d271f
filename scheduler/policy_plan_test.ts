import { assertEquals } from "@std/assert";
import { BlockPool } from "./block_pool.ts";
import type { PolicyPlan } from "./policy.ts";
import { checkPolicyPlan, type PlanBounds } from "./policy_plan.ts";
import { Sequence } from "./sequence.ts";

const POOL_BLOCKS = 8;

/** A sequence of 6 prompt tokens in blocks of 4. */
function waiting(id: number): Sequence {
  return new Sequence({
    id,
    prompt: Int32Array.of(1, 2, 3, 4, 5, 6),
    maxTokens: 9,
    arrivedMs: 0,
    salt: new Uint8Array(32),
    blockTokens: 4,
  });
}

/** Sequence 1 runs with 2 blocks and 4 computed tokens, 2 and 3 wait. */
function bounds(options: Partial<PlanBounds> = {}): PlanBounds {
  const pool = new BlockPool(POOL_BLOCKS);
  const running = waiting(1);
  running.advance({ kind: "start", blocks: [pool.allocate(), pool.allocate()], cachedTokens: 0, atMs: 0 });
  running.advance({ kind: "computed", tokens: 4, atMs: 0 });
  return {
    sequences: [running, waiting(2), waiting(3)],
    tokenBudget: 8,
    maxSequences: 2,
    maxPreemptions: 3,
    starving: [],
    rescue: undefined,
    pool,
    blockCost: (sequence) => sequence.status === "running" ? 0 : 2,
    ...options,
  };
}

function plan(tokens: Record<number, number>, preempt: number[] = []): PolicyPlan {
  return { tokens: new Map(Object.entries(tokens).map(([id, count]) => [Number(id), count])), preempt };
}

function verdict(answer: PolicyPlan, against: PlanBounds = bounds()): string {
  const check = checkPolicyPlan(answer, against);
  return check.kind === "valid" ? "valid" : check.reason;
}

Deno.test("checkPolicyPlan() resolves a valid plan", () => {
  const against = bounds();
  const [running, second] = against.sequences;
  assertEquals(checkPolicyPlan(plan({ 2: 6 }, [1]), against), {
    kind: "valid",
    plan: { preempt: [running], tokens: new Map([[second, 6]]) },
  });
});

Deno.test("checkPolicyPlan() refuses a plan that leaves its limits", async (t) => {
  const cases: [name: string, answer: PolicyPlan, reason: string][] = [
    ["an unknown id", plan({ 7: 1 }), "tokens name 7, which is unknown"],
    ["preempting an unknown id", plan({ 1: 1 }, [7]), "preempt names 7, which is not running"],
    ["preempting a waiting sequence", plan({ 1: 1 }, [2]), "preempt names 2, which is not running"],
    ["scheduling and preempting one sequence", plan({ 1: 1 }, [1]), "sequence 1 is both scheduled and preempted"],
    ["no tokens", plan({ 1: 0 }), "sequence 1 gets 0 tokens, it has 2 pending"],
    ["more tokens than pending", plan({ 1: 3 }), "sequence 1 gets 3 tokens, it has 2 pending"],
    ["a fraction of a token", plan({ 1: 0.5 }), "sequence 1 gets 0.5 tokens, it has 2 pending"],
    ["not a number", plan({ 1: NaN }), "sequence 1 gets NaN tokens, it has 2 pending"],
    ["nothing at all", plan({}), "it schedules nothing"],
    ["too many tokens", plan({ 2: 5, 3: 4 }), "9 tokens exceed the budget of 8"],
    ["too many sequences", plan({ 2: 4, 3: 4 }), "3 running sequences exceed the limit of 2"],
  ];
  for (const [name, answer, reason] of cases) {
    await t.step(name, () => assertEquals(verdict(answer), reason));
  }
});

Deno.test("checkPolicyPlan() counts the blocks that preemption frees", () => {
  const against = bounds({ blockCost: () => POOL_BLOCKS - 1 });
  assertEquals(verdict(plan({ 2: 1 }), against), "7 blocks exceed the 6 available");
  assertEquals(verdict(plan({ 2: 1 }, [1]), against), "valid");
});

Deno.test("checkPolicyPlan() refuses to preempt one victim too often", () => {
  assertEquals(
    verdict(plan({ 2: 1 }, [1]), bounds({ maxPreemptions: 0 })),
    "sequence 1 was preempted 0 times already",
  );
});

Deno.test("checkPolicyPlan() refuses a plan that leaves a starving sequence out", () => {
  const against = bounds();
  const [running, second] = against.sequences;
  assertEquals(
    verdict(plan({ 2: 1 }), { ...against, starving: [running] }),
    "it leaves out sequence 1, which starves",
  );
  assertEquals(verdict(plan({ 2: 1, 1: 1 }), { ...against, starving: [running] }), "valid");
  const rescue = { ...against, rescue: second };
  assertEquals(verdict(plan({ 3: 1 }), rescue), "it does not start sequence 2, which starves");
  assertEquals(verdict(plan({ 1: 1 }), rescue), "it does not start sequence 2, which starves");
  assertEquals(verdict(plan({ 1: 1 }), { ...rescue, maxSequences: 1 }), "valid");
  assertEquals(verdict(plan({ 1: 1, 2: 1 }), rescue), "valid");
});
