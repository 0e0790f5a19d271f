/**
 * The scheduler's own look at a policy's plan: whatever the host let through, a step never leaves its limits.
 *
 * @module
 */
import type { BlockPool } from "./block_pool.ts";
import type { PolicyPlan } from "./policy.ts";
import type { Sequence } from "./sequence.ts";

/** What a plan is checked against. */
export interface PlanBounds {
  /** Sequences the policy was shown. */
  readonly sequences: readonly Sequence[];
  /** Most tokens of the step. */
  readonly tokenBudget: number;
  /** Most running sequences. */
  readonly maxSequences: number;
  /** Preemptions after which a sequence may not be preempted again. */
  readonly maxPreemptions: number;
  /** Running sequences that the plan must schedule. */
  readonly starving: readonly Sequence[];
  /** Waiting sequence that the plan must start as soon as it fits, before any other. */
  readonly rescue: Sequence | undefined;
  /** Blocks. */
  readonly pool: BlockPool;
  /** Blocks that starting or continuing a sequence takes from the available ones. */
  readonly blockCost: (sequence: Sequence) => number;
}

/** A plan in terms of sequences. */
export interface ResolvedPlan {
  /** Running sequences to preempt. */
  readonly preempt: readonly Sequence[];
  /** Tokens for each sequence, running and waiting. */
  readonly tokens: ReadonlyMap<Sequence, number>;
}

/** The plan with its handles resolved, or why it cannot be carried out. */
export type PlanCheck =
  | { readonly kind: "valid"; readonly plan: ResolvedPlan }
  | { readonly kind: "refused"; readonly reason: string };

/** Checks ids, budget, batch, block capacity and fairness of a plan; changes nothing. */
export function checkPolicyPlan(plan: PolicyPlan, bounds: PlanBounds): PlanCheck {
  const known = new Map(bounds.sequences.map((sequence) => [sequence.id, sequence]));
  const preempt = new Set<Sequence>();
  for (const id of plan.preempt) {
    const sequence = known.get(id);
    if (sequence?.status !== "running") return refused(`preempt names ${id}, which is not running`);
    if (sequence.preemptions >= bounds.maxPreemptions) {
      return refused(`sequence ${id} was preempted ${sequence.preemptions} times already`);
    }
    preempt.add(sequence);
  }
  const tokens = new Map<Sequence, number>();
  let total = 0;
  for (const [id, count] of plan.tokens) {
    const sequence = known.get(id);
    if (sequence === undefined) return refused(`tokens name ${id}, which is unknown`);
    if (preempt.has(sequence)) return refused(`sequence ${id} is both scheduled and preempted`);
    if (!Number.isInteger(count) || count < 1 || count > sequence.pending) {
      return refused(`sequence ${id} gets ${count} tokens, it has ${sequence.pending} pending`);
    }
    tokens.set(sequence, count);
    total += count;
  }
  if (tokens.size === 0) return refused("it schedules nothing");
  if (total > bounds.tokenBudget) return refused(`${total} tokens exceed the budget of ${bounds.tokenBudget}`);
  const running = bounds.sequences.filter((sequence) =>
    !preempt.has(sequence) && (sequence.status === "running" || tokens.has(sequence))
  );
  if (running.length > bounds.maxSequences) {
    return refused(`${running.length} running sequences exceed the limit of ${bounds.maxSequences}`);
  }
  const needed = [...tokens.keys()].reduce((sum, sequence) => sum + bounds.blockCost(sequence), 0);
  const available = bounds.pool.available + freedBlocks(preempt, bounds.pool);
  if (needed > available) return refused(`${needed} blocks exceed the ${available} available`);
  const starving = bounds.starving.find((sequence) => !tokens.has(sequence));
  if (starving !== undefined) return refused(`it leaves out sequence ${starving.id}, which starves`);
  const { rescue } = bounds;
  if (rescue !== undefined && !tokens.has(rescue)) {
    const startsAnother = [...tokens.keys()].some((sequence) => sequence.status === "waiting");
    const fits = running.length < bounds.maxSequences && needed + bounds.blockCost(rescue) <= available;
    if (startsAnother || fits) return refused(`it does not start sequence ${rescue.id}, which starves`);
  }
  return { kind: "valid", plan: { preempt: [...preempt], tokens } };
}

/** Blocks that become available when `sequences` give theirs up. Shared ones are not counted: a lower bound. */
function freedBlocks(sequences: Iterable<Sequence>, pool: BlockPool): number {
  let freed = 0;
  for (const { localBlocks } of sequences) for (const block of localBlocks) if (pool.references(block) === 1) freed++;
  return freed;
}

function refused(reason: string): PlanCheck {
  return { kind: "refused", reason };
}
