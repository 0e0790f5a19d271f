/**
 * Continuous batching: which sequences compute how many tokens in the next step, and whose blocks pay for it.
 *
 * @module
 */
import type { EngineEvent, InstanceView } from "../plugins/types.ts";
import type { BlockId, BlockPool } from "./block_pool.ts";
import { BlockTables } from "./block_tables.ts";
import type { PolicyHost } from "./policy.ts";
import { checkPolicyPlan, type ResolvedPlan } from "./policy_plan.ts";
import { queueView } from "./queue_view.ts";
import type { Sequence } from "./sequence.ts";
import { type CheckedPlan, PlanDraft, type PlannedSequence } from "./step_plan.ts";

/** Makes a {@linkcode StepScheduler}. */
export interface StepSchedulerOptions {
  /** Blocks. */
  readonly pool: BlockPool;
  /** Policy that ranks and may plan. */
  readonly policy: PolicyHost;
  /** Tokens of one block. */
  readonly blockTokens: number;
  /** Most tokens in one step. */
  readonly maxStepTokens: number;
  /** The same while a sequence decodes: its next token waits for the whole step. @default {maxStepTokens} */
  readonly mixedStepTokens?: number;
  /** Most rows of logits in one step. */
  readonly maxLogitRows: number;
  /** Most running sequences; at most `mixedStepTokens` and `maxLogitRows`. */
  readonly maxBatch: number;
  /** Monotonic clock, ms. */
  readonly now: () => number;
  /** Whether to look for prompts in the prefix cache. @default {true} */
  readonly prefixCache?: boolean;
  /** Time in no step after which a sequence starves: see {@linkcode StepScheduler}, ms. @default {30000} */
  readonly starvationMs?: number;
  /** Preemptions after which a sequence goes first, whatever the policy says. @default {3} */
  readonly maxPreemptions?: number;
}

/** One start in this many goes to a starving sequence, so that a policy's order still holds under overload. */
const STARTS_PER_RESCUE = 4;

/** Counters; they only rise. */
export interface SchedulerCounters {
  /** Preemptions. */
  readonly preemptions: number;
  /** Prompt tokens looked up in the prefix cache. */
  readonly prefixQueries: number;
  /** Prompt tokens found there. */
  readonly prefixHits: number;
  /** Prompt tokens computed, each once. */
  readonly promptTokens: number;
  /** Plans of the policy that this scheduler refused. */
  readonly refusedPlans: number;
}

/**
 * Queues of waiting and running sequences over one block pool.
 *
 * A sequence that starts gets blocks for all it knows, so that only decoding can run out of them; then the sequence of
 * lowest rank is preempted. The sequence of highest rank is never preempted for another one. Whatever the policy says,
 * the highest rank goes to sequences that were preempted too often or starve while they run, and for one start in four
 * to the oldest sequence that starves in the queue. So every sequence that fits the pool alone ends.
 */
export class StepScheduler {
  readonly #options: Required<StepSchedulerOptions>;
  readonly #pool: BlockPool;
  readonly #tables: BlockTables;
  readonly #waiting = new Set<Sequence>();
  readonly #running = new Set<Sequence>();
  /** Sequences that the step under way computes. */
  readonly #flying = new Set<Sequence>();
  /** Block tables of sequences that ended during the step that computes them. */
  readonly #grounded: (readonly BlockId[])[] = [];
  #events: EngineEvent[] = [];
  #startsSinceRescue = 0;
  #preemptions = 0;
  #promptTokens = 0;
  #refusedPlans = 0;

  /**
   * Makes an empty scheduler.
   *
   * @throws {RangeError} when `maxBatch` sequences could not all decode in one step.
   */
  constructor(options: StepSchedulerOptions) {
    const { maxBatch, maxStepTokens, maxLogitRows } = options;
    const mixedStepTokens = Math.min(options.mixedStepTokens ?? maxStepTokens, maxStepTokens);
    const most = Math.min(mixedStepTokens, maxLogitRows);
    if (!Number.isInteger(maxBatch) || maxBatch < 1 || maxBatch > most) {
      throw new RangeError(
        `Cannot make a scheduler: wanted maxBatch from 1 to ${most} (a step that decodes computes ${mixedStepTokens} ` +
          `tokens and ${maxLogitRows} rows of logits), got ${maxBatch}`,
      );
    }
    this.#options = {
      ...options,
      mixedStepTokens,
      prefixCache: options.prefixCache ?? true,
      starvationMs: options.starvationMs ?? 30_000,
      maxPreemptions: options.maxPreemptions ?? 3,
    };
    this.#pool = options.pool;
    this.#tables = new BlockTables(options.pool, {
      blockTokens: options.blockTokens,
      prefixCache: this.#options.prefixCache,
    });
  }

  /** What a policy sees of this instance. */
  get instance(): InstanceView {
    return {
      waiting: this.#waiting.size,
      running: this.#running.size,
      totalBlocks: this.#pool.total,
      availableBlocks: this.#pool.available,
      blockTokens: this.#options.blockTokens,
    };
  }

  /** Whether live sequences that cannot run may be able to once others act: blocks are lent. */
  get waitsForMemory(): boolean {
    const { lent, quarantined } = this.#pool.counts;
    return lent + quarantined > 0;
  }

  /** Current counters. */
  get counters(): SchedulerCounters {
    return {
      preemptions: this.#preemptions,
      prefixQueries: this.#tables.prefixQueries,
      prefixHits: this.#tables.prefixHits,
      promptTokens: this.#promptTokens,
      refusedPlans: this.#refusedPlans,
    };
  }

  /** Whether a sequence of that prompt and output could ever run: the KV of its last token is never needed. */
  canEverFit(promptTokens: number, maxTokens: number): boolean {
    return this.#tables.blocksFor(promptTokens + Math.max(0, maxTokens - 1)) <= this.#pool.total;
  }

  /** Puts a new sequence into the queue. It must be able to {@linkcode canEverFit}. */
  add(sequence: Sequence): void {
    this.#waiting.add(sequence);
    this.#record("queued", sequence);
  }

  /**
   * Takes a sequence out and gives its blocks back, at any time but inside {@linkcode schedule}; those that a step under way
   * touches when it ends.
   */
  end(sequence: Sequence, reason: string): void {
    this.#running.delete(sequence);
    this.#waiting.delete(sequence);
    if (this.#flying.has(sequence)) this.#grounded.push(sequence.blocks);
    else this.#tables.release(sequence.blocks);
    sequence.advance({ kind: "end" });
    this.#events.push({ kind: "ended", id: sequence.id, atMs: this.#options.now(), reason });
  }

  /** Plans the next step: blocks are reserved and victims preempted; the caller runs it, then commits each entry. */
  schedule(): CheckedPlan {
    const ranked = this.#ranked();
    const { maxStepTokens, mixedStepTokens, maxLogitRows } = this.#options;
    const mixed = ranked.some((sequence) => sequence.decoding && sequence.status === "running");
    const tokens = mixed ? mixedStepTokens : maxStepTokens;
    const draft = new PlanDraft({ tokens, rows: maxLogitRows });
    const plan = this.#policyPlan(ranked, tokens);
    if (plan === undefined) this.#fill(ranked, draft);
    else this.#carryOut(plan, draft);
    return draft;
  }

  /** A step with this plan is under way: until {@linkcode endStep} the blocks of its sequences stay theirs. */
  beginStep(plan: CheckedPlan): void {
    for (const { sequence } of plan.entries) this.#flying.add(sequence);
  }

  /** The step under way is over, whatever came of it: nothing touches its blocks any more. */
  endStep(): void {
    this.#flying.clear();
    for (const blocks of this.#grounded.splice(0)) this.#tables.release(blocks);
  }

  /** Books what an entry of the last plan computed, and the token sampled after it. */
  commit(entry: PlannedSequence, next?: number): void {
    const { sequence, tokens } = entry;
    const { computed, peak, generated } = sequence;
    sequence.advance({ kind: "computed", tokens, next, atMs: this.#options.now() });
    const promptEnd = Math.min(sequence.computed, sequence.prompt.length);
    this.#promptTokens += Math.max(0, promptEnd - Math.max(computed, peak));
    this.#tables.publish(sequence, computed);
    if (next !== undefined && generated === 0) this.#record("first-token", sequence);
  }

  /** Tells the policy what happened since the last call. */
  settle(): void {
    if (this.#events.length === 0) return;
    const events = this.#events;
    this.#events = [];
    this.#options.policy.observe(events);
  }

  /** Checks the pool against the block tables. @throws {Error} with the arithmetic that does not hold. */
  checkIntegrity(): void {
    for (const sequence of this.#waiting) {
      if (sequence.status !== "waiting" || sequence.blocks.length > 0) {
        throw new Error(
          `Queue is broken: waiting sequence ${sequence.id} is ${sequence.status} with ${sequence.blocks.length} blocks`,
        );
      }
    }
    for (const sequence of this.#running) {
      const capacity = sequence.blocks.length * this.#options.blockTokens;
      if (sequence.status !== "running" || sequence.computed > capacity) {
        throw new Error(
          `Queue is broken: running sequence ${sequence.id} is ${sequence.status}, ` +
            `${sequence.computed} tokens in blocks for ${capacity}`,
        );
      }
    }
    this.#pool.checkIntegrity([...[...this.#running].map((sequence) => sequence.blocks), ...this.#grounded]);
  }

  /** Live sequences that may run, running ones first, each part in rank order with the urgent in front. */
  #ranked(): readonly Sequence[] {
    const ready = [...this.#running, ...[...this.#waiting].filter((sequence) => sequence.ready)];
    if (ready.length < 2) return ready;
    const rescue = this.#rescue();
    const urgent = ready.filter((sequence) =>
      sequence === rescue || sequence.preemptions >= this.#options.maxPreemptions ||
      sequence.status === "running" && this.#starves(sequence)
    ).sort((a, b) => a.id - b.id);
    const order = this.#options.policy.rank(queueView(ready));
    const ranked = new Set([...urgent, ...Array.from(order, (index) => ready[index])]);
    return [
      ...[...ranked].filter((sequence) => sequence.status === "running"),
      ...[...ranked].filter((sequence) => sequence.status === "waiting"),
    ];
  }

  #starves(sequence: Sequence): boolean {
    return this.#options.now() - sequence.activeMs > this.#options.starvationMs;
  }

  /** The waiting sequence that must start next, if it is the turn of a starving one. */
  #rescue(): Sequence | undefined {
    if (this.#startsSinceRescue < STARTS_PER_RESCUE - 1) return undefined;
    let oldest: Sequence | undefined;
    for (const sequence of this.#waiting) {
      if (sequence.ready && this.#starves(sequence) && sequence.id < (oldest?.id ?? Infinity)) oldest = sequence;
    }
    return oldest;
  }

  /** The policy's plan for this step, unless it has none or it is refused. */
  #policyPlan(ranked: readonly Sequence[], tokenBudget: number): ResolvedPlan | undefined {
    if (ranked.length === 0) return undefined;
    const { maxBatch: maxSequences, maxPreemptions } = this.#options;
    const answer = this.#options.policy.plan({
      queue: queueView(ranked),
      instance: this.instance,
      tokenBudget,
      maxSequences,
    });
    if (answer === null) return undefined;
    const check = checkPolicyPlan(answer, {
      sequences: ranked,
      tokenBudget,
      maxSequences,
      maxPreemptions,
      starving: ranked.filter((sequence) => sequence.status === "running" && this.#starves(sequence)),
      rescue: this.#rescue(),
      pool: this.#pool,
      blockCost: (sequence) => this.#tables.cost(sequence),
    });
    if (check.kind === "valid") return check.plan;
    this.#refusedPlans++;
    return undefined;
  }

  #carryOut(plan: ResolvedPlan, draft: PlanDraft): void {
    for (const sequence of plan.preempt) this.#preempt(sequence);
    for (const [sequence, tokens] of plan.tokens) {
      const ready = sequence.status === "running" ? this.#tables.tryGrow(sequence) : this.#tryStart(sequence, 0);
      if (ready) draft.take(sequence, tokens);
    }
  }

  /** The scheduler's own plan: every decode, then prefill in rank order, then new sequences while they fit. */
  #fill(ranked: readonly Sequence[], draft: PlanDraft): void {
    const running = ranked.filter((sequence) => sequence.status === "running");
    this.#decode(running, draft);
    for (const sequence of running) if (!sequence.decoding) draft.take(sequence, sequence.pending);
    for (const sequence of ranked) {
      if (sequence.status !== "waiting") continue;
      if (this.#running.size >= this.#options.maxBatch || draft.tokensLeft === 0) return;
      // Room for one more block each keeps a newcomer from being preempted at once. No later sequence overtakes one
      // that does not fit: it would wait forever.
      if (!this.#tryStart(sequence, this.#running.size)) return;
      draft.take(sequence, sequence.pending);
    }
  }

  /** Schedules every decode of `running`, taking victims off its end. */
  #decode(running: Sequence[], draft: PlanDraft): void {
    for (let i = 0; i < running.length; i++) {
      const sequence = running[i];
      if (!sequence.decoding) continue;
      while (sequence.status === "running" && !this.#tables.tryGrow(sequence)) {
        const victim = running.pop();
        if (victim !== undefined) this.#preempt(victim);
      }
      if (sequence.status === "running") draft.take(sequence, 1);
    }
  }

  #tryStart(sequence: Sequence, spare: number): boolean {
    const first = sequence.preemptions === 0;
    const rescued = this.#starves(sequence);
    if (!this.#tables.tryStart(sequence, { spare, atMs: this.#options.now() })) return false;
    this.#waiting.delete(sequence);
    this.#running.add(sequence);
    this.#startsSinceRescue = rescued ? 0 : this.#startsSinceRescue + 1;
    if (first) this.#record("started", sequence);
    return true;
  }

  #preempt(sequence: Sequence): void {
    this.#tables.release(sequence.blocks);
    this.#running.delete(sequence);
    this.#waiting.add(sequence);
    sequence.advance({ kind: "preempt", atMs: this.#options.now() });
    this.#preemptions++;
    this.#record("preempted", sequence);
  }

  #record(kind: "queued" | "started" | "first-token" | "preempted", sequence: Sequence): void {
    this.#events.push({ kind, id: sequence.id, atMs: this.#options.now() });
  }
}
