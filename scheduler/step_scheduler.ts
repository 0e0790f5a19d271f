/**
 * Continuous batching: which sequences compute how many tokens in the next step, and whose blocks pay for it.
 *
 * Longer than other files because ranks, plans, starts and preemptions decide over the same two queues; memory is a matter
 * of `lending/scheduler_memory.ts`.
 *
 * @module
 */
import type { EngineEvent, InstanceView } from "../plugins/types.ts";
import type { BlockPool } from "./block_pool.ts";
import { foresee, type ForeseenSequence, isAsForeseen } from "./foresight.ts";
import type { BorrowedSlot } from "./lending/borrowed.ts";
import type { ClusterMemory } from "./lending/cluster_memory.ts";
import { GROWTH_TOKENS } from "./lending/room.ts";
import { SchedulerMemory } from "./lending/scheduler_memory.ts";
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
  /** Whether a plan says what the step behind it computes, and the next plan keeps to that. @default {false} */
  readonly ahead?: boolean;
  /** Time in no step after which a sequence starves: see {@linkcode StepScheduler}, ms. @default {30000} */
  readonly starvationMs?: number;
  /** Preemptions after which a sequence goes first, whatever the policy says. @default {3} */
  readonly maxPreemptions?: number;
  /** Tokens of one segment, the unit in which memory is borrowed; a multiple of `blockTokens`. @default {256} */
  readonly segmentTokens?: number;
  /** Segments that could be borrowed from other members now; absent where there are none and will be none. */
  readonly reach?: () => number;
  /** The same, once newcomers that fill gently go on to lend: a matter of seconds. @default {`reach`} */
  readonly soon?: () => number;
  /** Segments that could be borrowed if nobody else had anything at those who lend. @default {`reach`} */
  readonly capacity?: () => number;
  /** Takes slots back that no sequence uses any more. @default {drops them} */
  readonly onRelease?: (slots: readonly BorrowedSlot[]) => void;
  /** Tokens for which a sequence that borrows reserves room beyond those it has. @default {1024} */
  readonly growthTokens?: number;
}

/** One start in this many goes to a starving sequence, so that a policy's order still holds under overload. */
const STARTS_PER_RESCUE = 4;

/** Tokens of one segment where nobody says otherwise. */
const SEGMENT_TOKENS = 256;

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
  /** Lost segments whose KV is whole again. */
  readonly repairs: number;
  /** Tokens computed again for that. */
  readonly repairedTokens: number;
}

/**
 * Queues of waiting and running sequences over one block pool.
 *
 * A sequence that starts gets blocks for all it knows, so that only decoding can run out of them; then the sequence of
 * lowest rank is preempted. The sequence of highest rank is never preempted for another one. Whatever the policy says,
 * the highest rank goes to sequences that were preempted too often or starve while they run, and for one start in four
 * to the oldest sequence that starves in the queue. So every sequence that fits the pool alone ends.
 *
 * One that does not fit lives on room at other members, see {@linkcode Room}. While it waits for an answer or for its own
 * moves it is not scheduled, and later ones overtake it.
 */
export class StepScheduler {
  readonly #options: Required<StepSchedulerOptions>;
  readonly #pool: BlockPool;
  readonly #memory: SchedulerMemory;
  readonly #waiting = new Set<Sequence>();
  readonly #running = new Set<Sequence>();
  #hopeless: readonly Sequence[] = [];
  #foreseen: readonly ForeseenSequence[] = [];
  #events: EngineEvent[] = [];
  #startsSinceRescue = 0;
  #preemptions = 0;
  #promptTokens = 0;
  #refusedPlans = 0;
  #repairs = 0;
  #repairedTokens = 0;

  /**
   * Makes an empty scheduler.
   *
   * @throws {RangeError} when `maxBatch` sequences could not all decode in one step, or a segment is not made of whole
   * blocks.
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
    const segmentTokens = options.segmentTokens ?? SEGMENT_TOKENS;
    if (segmentTokens % options.blockTokens !== 0) {
      throw new RangeError(
        `Cannot make a scheduler: wanted segments of whole blocks of ${options.blockTokens} tokens, got ${segmentTokens}`,
      );
    }
    this.#options = {
      ...options,
      segmentTokens,
      reach: options.reach ?? (() => 0),
      soon: options.soon ?? options.reach ?? (() => 0),
      capacity: options.capacity ?? options.reach ?? (() => 0),
      onRelease: options.onRelease ?? (() => {}),
      growthTokens: options.growthTokens ?? GROWTH_TOKENS,
      mixedStepTokens,
      prefixCache: options.prefixCache ?? true,
      ahead: options.ahead ?? false,
      starvationMs: options.starvationMs ?? 30_000,
      maxPreemptions: options.maxPreemptions ?? 3,
    };
    this.#pool = options.pool;
    this.#memory = new SchedulerMemory({
      ...this.#options,
      alone: options.reach === undefined,
      running: this.#running,
      waiting: this.#waiting,
    });
  }

  /** The memory as other members see it. */
  get memory(): ClusterMemory {
    return this.#memory;
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

  /** Whether live sequences that cannot run may be able to once others act: lend, finish moves, give blocks back. */
  get waitsForMemory(): boolean {
    return this.#memory.active;
  }

  /** Blocks that nothing but moves under way holds. */
  get movingBlocks(): number {
    return this.#memory.movingBlocks;
  }

  /** Tokens of the longest sequence that could run now, here and at other members. */
  get reachableTokens(): number {
    return this.#memory.reachableTokens;
  }

  /** Blocks that the waiting sequences take with all they know. */
  get waitingBlocks(): number {
    let blocks = 0;
    for (const { length } of this.#waiting) blocks += this.#memory.tables.blocksFor(length);
    return blocks;
  }

  /** Current counters. */
  get counters(): SchedulerCounters {
    return {
      preemptions: this.#preemptions,
      prefixQueries: this.#memory.tables.prefixQueries,
      prefixHits: this.#memory.tables.prefixHits,
      promptTokens: this.#promptTokens,
      refusedPlans: this.#refusedPlans,
      repairs: this.#repairs,
      repairedTokens: this.#repairedTokens,
    };
  }

  /**
   * Whether a sequence of that prompt and output could run once all others have ended: the KV of its last token is never
   * needed.
   */
  canEverFit(promptTokens: number, maxTokens: number): boolean {
    return promptTokens + Math.max(0, maxTokens - 1) <= this.#memory.mostTokens;
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
    this.#memory.release(sequence);
    this.#memory.forget(sequence);
    sequence.advance({ kind: "end" });
    this.#events.push({ kind: "ended", id: sequence.id, atMs: this.#options.now(), reason });
  }

  /** Plans the next step: blocks are reserved and victims preempted; the caller runs it, then commits each entry. */
  schedule(): CheckedPlan {
    const ranked = this.#ranked();
    const { maxStepTokens, mixedStepTokens, maxLogitRows } = this.#options;
    const { blocked, hopeless } = this.#memory.settle(ranked, { preempt: (victim) => this.#preempt(victim) });
    this.#hopeless = hopeless;
    const mixed = ranked.some((sequence) =>
      sequence.decoding && sequence.status === "running" && !blocked.has(sequence)
    );
    const tokens = mixed ? mixedStepTokens : maxStepTokens;
    const draft = new PlanDraft({ tokens, rows: maxLogitRows });
    const plan = this.#policyPlan(ranked, { tokenBudget: tokens, blocked });
    if (plan !== undefined) this.#carryOut(plan, draft);
    const foreseen = this.#foreseen;
    this.#foreseen = [];
    // A policy's plan may come to nothing where the room for it went to others.
    const own = draft.entries.length === 0;
    if (own && !this.#keepTo(foreseen, { draft, blocked, tokens })) this.#fill(ranked, { draft, blocked });
    // A policy's plans cannot be foreseen, nor what comes of moves and answers.
    if (this.#options.ahead && own && blocked.size === 0) this.#foreseen = this.#foresee(ranked, draft);
    draft.following = this.#foreseen;
    return draft;
  }

  /** Waiting sequences that the last {@linkcode schedule} found to be larger than everything there is, for too long. */
  get hopeless(): readonly Sequence[] {
    return this.#hopeless;
  }

  /** A step with this plan is under way: until {@linkcode endStep} everything it touches stays as it is. */
  beginStep({ entries, following }: CheckedPlan): void {
    this.#memory.beginStep([...entries, ...following].map(({ sequence }) => sequence));
  }

  /** The step under way is over, whatever came of it: nothing touches its blocks any more. */
  endStep(): void {
    this.#memory.endStep();
  }

  /** What a step computed is booked: moves that ended meanwhile change the block tables now. */
  closeStep(): void {
    this.#memory.closeStep();
  }

  /** Books what an entry of the last plan computed, and the token sampled after it. */
  commit(entry: PlannedSequence, next?: number): void {
    const { sequence, position, tokens } = entry;
    const atMs = this.#options.now();
    if (entry.repair) {
      const broken = sequence.places.brokenCount;
      sequence.advance({ kind: "repaired", position, tokens, atMs });
      this.#repairs += broken - sequence.places.brokenCount;
      this.#repairedTokens += tokens;
    } else {
      const { computed, peak, generated } = sequence;
      sequence.advance({ kind: "computed", tokens, next, atMs });
      const promptEnd = Math.min(sequence.computed, sequence.prompt.length);
      this.#promptTokens += Math.max(0, promptEnd - Math.max(computed, peak));
      if (next !== undefined && generated === 0) this.#record("first-token", sequence);
    }
    this.#memory.tables.publish(sequence, { from: position, to: position + tokens });
  }

  /** Tells the policy what happened since the last call. */
  settle(): void {
    if (this.#events.length === 0) return;
    const events = this.#events;
    this.#events = [];
    this.#options.policy.observe(events);
  }

  /** Checks the pool, the block tables and what is borrowed against each other. @throws {Error} with the arithmetic that does not hold. */
  checkIntegrity(): void {
    for (const sequence of this.#waiting) {
      if (sequence.status !== "waiting" || sequence.blocks.length > 0) {
        throw new Error(
          `Queue is broken: waiting sequence ${sequence.id} is ${sequence.status} with ${sequence.blocks.length} blocks`,
        );
      }
    }
    for (const sequence of this.#running) {
      if (sequence.status !== "running" || sequence.computed > sequence.capacity) {
        throw new Error(
          `Queue is broken: running sequence ${sequence.id} is ${sequence.status}, ` +
            `${sequence.computed} tokens in blocks for ${sequence.capacity}`,
        );
      }
    }
    this.#memory.checkIntegrity();
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
  #policyPlan(
    all: readonly Sequence[],
    options: { readonly tokenBudget: number; readonly blocked: ReadonlySet<Sequence> },
  ): ResolvedPlan | undefined {
    const { tokenBudget, blocked } = options;
    const ranked = blocked.size === 0 ? all : all.filter((sequence) => !blocked.has(sequence));
    if (ranked.length === 0) return undefined;
    const { maxBatch, maxPreemptions } = this.#options;
    const blockedRunning = [...blocked].filter(({ status }) => status === "running").length;
    const maxSequences = Math.max(1, maxBatch - blockedRunning);
    const rescue = this.#rescue();
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
      rescue: rescue !== undefined && !blocked.has(rescue) ? rescue : undefined,
      pool: this.#pool,
      blockCost: (sequence) => this.#memory.cost(sequence),
    });
    if (check.kind === "valid") return check.plan;
    this.#refusedPlans++;
    return undefined;
  }

  /** The step behind the one that is planned. */
  #foresee(ranked: readonly Sequence[], { entries }: PlanDraft): ForeseenSequence[] {
    const { maxBatch, maxStepTokens, mixedStepTokens, maxLogitRows } = this.#options;
    return foresee(entries, {
      running: ranked.filter(({ status }) => status === "running"),
      waiting: ranked.filter(({ status }) => status === "waiting"),
      tables: this.#memory.tables,
      limits: (mixed) => ({ tokens: mixed ? mixedStepTokens : maxStepTokens, rows: maxLogitRows }),
      tryStart: (sequence) => this.#running.size < maxBatch && this.#tryStart(sequence, this.#running.size),
    });
  }

  /** Plans what was foreseen, without the sequences that have ended. @returns false, and plans nothing, when it came otherwise. */
  #keepTo(
    foreseen: readonly ForeseenSequence[],
    { draft, blocked, tokens }: {
      readonly draft: PlanDraft;
      readonly blocked: ReadonlySet<Sequence>;
      readonly tokens: number;
    },
  ): boolean {
    const left = foreseen.filter(({ sequence }) => sequence.status === "running");
    if (left.length === 0 || left.reduce((sum, part) => sum + part.tokens, 0) > tokens) return false;
    if (!left.every((part) => !blocked.has(part.sequence) && isAsForeseen(part))) return false;
    for (const part of left) draft.take(part.sequence, part.tokens);
    return true;
  }

  #carryOut(plan: ResolvedPlan, draft: PlanDraft): void {
    for (const sequence of plan.preempt) this.#preempt(sequence);
    for (const [sequence, tokens] of plan.tokens) {
      const ready = sequence.status === "running" ? this.#memory.tables.tryGrow(sequence) : this.#tryStart(sequence, 0);
      if (ready) draft.take(sequence, tokens);
    }
  }

  /** The scheduler's own plan: every decode, then prefill in rank order, then new sequences while they fit. */
  #fill(
    ranked: readonly Sequence[],
    { draft, blocked }: { readonly draft: PlanDraft; readonly blocked: ReadonlySet<Sequence> },
  ): void {
    const running = ranked.filter((sequence) => sequence.status === "running");
    this.#decode(running, { draft, blocked });
    for (const sequence of running) {
      if (sequence.status === "running" && !sequence.decoding) draft.take(sequence, sequence.pending);
    }
    for (const sequence of ranked) {
      if (sequence.status !== "waiting" || blocked.has(sequence)) continue;
      if (this.#running.size >= this.#options.maxBatch || draft.tokensLeft === 0) return;
      // Room for one more block each keeps a newcomer from being preempted at once. No later sequence overtakes one
      // that does not fit: it would wait forever.
      if (!this.#tryStart(sequence, this.#running.size)) return;
      draft.take(sequence, sequence.pending);
    }
  }

  /** Schedules every decode of `running` that is not blocked, taking victims off its end. */
  #decode(
    running: Sequence[],
    { draft, blocked }: { readonly draft: PlanDraft; readonly blocked: ReadonlySet<Sequence> },
  ): void {
    for (let i = 0; i < running.length; i++) {
      const sequence = running[i];
      if (!sequence.decoding || blocked.has(sequence)) continue;
      while (sequence.status === "running" && !this.#memory.tables.tryGrow(sequence)) {
        const victim = running.pop();
        if (victim !== undefined) this.#preempt(victim);
      }
      if (sequence.status === "running") draft.take(sequence, 1);
    }
  }

  #tryStart(sequence: Sequence, spare: number): boolean {
    const first = sequence.preemptions === 0;
    const rescued = this.#starves(sequence);
    if (!this.#memory.tryStart(sequence, spare)) return false;
    this.#waiting.delete(sequence);
    this.#running.add(sequence);
    this.#startsSinceRescue = rescued ? 0 : this.#startsSinceRescue + 1;
    if (first) this.#record("started", sequence);
    return true;
  }

  #preempt(sequence: Sequence): void {
    this.#memory.release(sequence);
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
