/**
 * An engine without a model: real queues, budget and blocks, made-up tokens. It runs a policy from the first arrival to
 * the last end, so that a policy can be judged by what comes of it.
 *
 * @module
 */
import type { SeededRandom } from "./fuzz.ts";
import type { SchedulerHost } from "./host.ts";
import type { EngineEvent, InstanceView, QueueView, StepView } from "./types.ts";

const BLOCK_TOKENS = 16;
const TOTAL_BLOCKS = 48;
const TOKEN_BUDGET = 64;
const MAX_SEQUENCES = 6;
const STEP_MS = 20;
/** Steps after which a run without an end is stuck: each sequence alone needs fewer, even token by token. */
const STUCK_STEPS = 5_000;

/** One sequence of a {@linkcode ToyEngine}. */
interface ToySequence {
  readonly id: number;
  readonly promptTokens: number;
  readonly maxTokens: number;
  readonly priority: number;
  readonly arrivedMs: number;
  computed: number;
  generated: number;
  blocks: number;
  preemptions: number;
}

/** What came of a run. */
export interface ToyRun {
  /** Every decision of the policy, in order. */
  readonly decisions: readonly string[];
  /** Requests turned away. */
  readonly rejected: number;
}

/** Runs requests, half of them at once and the rest as time goes by. */
export class ToyEngine {
  readonly #host: SchedulerHost;
  readonly #clock: { ms: number };
  readonly #afterStep: () => void;
  readonly #arrivals: ToySequence[];
  readonly #waiting = new Set<ToySequence>();
  readonly #running = new Set<ToySequence>();
  readonly #decisions: string[] = [];
  #events: EngineEvent[] = [];
  #rejected = 0;
  #stepsWithoutEnd = 0;

  /** Makes an engine; `clock` is the one the host reads, and advances with each step. */
  constructor(
    host: SchedulerHost,
    options: {
      readonly clock: { ms: number };
      readonly random: SeededRandom;
      readonly requests: number;
      /** Called at the end of each step; what it throws ends the run. */
      readonly afterStep: () => void;
    },
  ) {
    const { clock, random, requests } = options;
    this.#host = host;
    this.#clock = clock;
    this.#afterStep = options.afterStep;
    this.#arrivals = Array.from({ length: requests }, (_, id) => ({
      id,
      promptTokens: random.pick([1, 15, 16, 17, 100, 600]),
      maxTokens: random.pick([1, 8, 40, 100]),
      priority: random.pick([0, 0, 0, -2, 5]),
      arrivedMs: clock.ms + (id < requests / 2 ? 0 : id * 200),
      computed: 0,
      generated: 0,
      blocks: 0,
      preemptions: 0,
    }));
  }

  /** Whether everything has ended. */
  get done(): boolean {
    return this.#arrivals.length + this.#waiting.size + this.#running.size === 0;
  }

  /**
   * Runs one step.
   *
   * @throws {RangeError} when the policy's plan takes more blocks than there are.
   * @throws {Error} when sequences live on and none ends.
   */
  step(): void {
    this.#admit();
    const sequences = [...this.#running, ...this.#waiting];
    if (sequences.length > 0) {
      const view = queueOf(sequences, this.#running);
      const order = this.#host.rank(view);
      this.#decisions.push(`rank ${Array.from(order, (index) => view.id[index]).join(" ")}`);
      const ranked = Array.from(order, (index) => sequences[index]);
      this.#compute([
        ...ranked.filter((sequence) => this.#running.has(sequence)),
        ...ranked.filter((sequence) => this.#waiting.has(sequence)),
      ]);
    }
    this.#host.observe(this.#events);
    this.#events = [];
    this.#clock.ms += STEP_MS;
    this.#afterStep();
    if (++this.#stepsWithoutEnd > STUCK_STEPS) {
      const ids = sequences.map((sequence) => sequence.id).join(", ");
      throw new Error(`Cannot finish the run: no sequence has ended for ${STUCK_STEPS} steps, alive are ${ids}`);
    }
  }

  /** Runs until everything has ended. @throws as {@linkcode step} does. */
  run(): ToyRun {
    while (!this.done) this.step();
    return { decisions: this.#decisions, rejected: this.#rejected };
  }

  get #instance(): InstanceView {
    let owned = 0;
    for (const { blocks } of this.#running) owned += blocks;
    return {
      waiting: this.#waiting.size,
      running: this.#running.size,
      totalBlocks: TOTAL_BLOCKS,
      availableBlocks: TOTAL_BLOCKS - owned,
      blockTokens: BLOCK_TOKENS,
    };
  }

  #admit(): void {
    while (this.#arrivals.length > 0 && this.#arrivals[0].arrivedMs <= this.#clock.ms) {
      const [sequence] = this.#arrivals.splice(0, 1);
      const { promptTokens, maxTokens, priority } = sequence;
      const admission = this.#host.admit(
        { id: `toy-${sequence.id}`, promptTokens, maxTokens, priority, tenant: "" },
        this.#instance,
      );
      this.#decisions.push(`admit ${sequence.id} ${admission.kind}`);
      if (admission.kind === "reject") {
        this.#rejected++;
        continue;
      }
      this.#waiting.add(sequence);
      this.#events.push({ kind: "queued", id: sequence.id, atMs: this.#clock.ms });
    }
  }

  #compute(ranked: readonly ToySequence[]): void {
    const step: StepView = {
      queue: queueOf(ranked, this.#running),
      instance: this.#instance,
      tokenBudget: TOKEN_BUDGET,
      maxSequences: MAX_SEQUENCES,
    };
    const plan = this.#host.plan(step) ?? defaultPlan(step);
    this.#decisions.push(`plan ${[...plan.tokens].join(" ")} preempt ${plan.preempt.join(" ")}`);
    const byId = new Map(ranked.map((sequence) => [sequence.id, sequence]));
    for (const id of plan.preempt) this.#preempt(byId.get(id));
    for (const [id, tokens] of plan.tokens) this.#advance(byId.get(id), tokens);
    const { availableBlocks } = this.#instance;
    if (availableBlocks < 0) {
      throw new RangeError(
        `Cannot carry out the plan: it takes ${TOTAL_BLOCKS - availableBlocks} blocks, there are ${TOTAL_BLOCKS}`,
      );
    }
    for (const sequence of this.#running) if (sequence.generated >= sequence.maxTokens) this.#end(sequence);
  }

  #preempt(sequence: ToySequence | undefined): void {
    if (sequence === undefined) return;
    this.#running.delete(sequence);
    this.#waiting.add(sequence);
    Object.assign(sequence, { computed: 0, blocks: 0, preemptions: sequence.preemptions + 1 });
    this.#events.push({ kind: "preempted", id: sequence.id, atMs: this.#clock.ms });
  }

  #advance(sequence: ToySequence | undefined, tokens: number): void {
    if (sequence === undefined) return;
    if (this.#waiting.delete(sequence)) {
      this.#running.add(sequence);
      if (sequence.preemptions === 0) this.#events.push({ kind: "started", id: sequence.id, atMs: this.#clock.ms });
    }
    const known = sequence.promptTokens + sequence.generated;
    sequence.blocks = Math.ceil(known / BLOCK_TOKENS);
    sequence.computed += tokens;
    if (sequence.computed < known) return;
    if (sequence.generated++ > 0) return;
    this.#events.push({ kind: "first-token", id: sequence.id, atMs: this.#clock.ms });
  }

  #end(sequence: ToySequence): void {
    this.#running.delete(sequence);
    this.#stepsWithoutEnd = 0;
    this.#events.push({ kind: "ended", id: sequence.id, atMs: this.#clock.ms, reason: "length" });
  }
}

/** Decodes everything it can, then prefills, then starts what fits; preempts from the end when blocks run out. */
function defaultPlan({ queue, instance, tokenBudget, maxSequences }: StepView): {
  readonly tokens: ReadonlyMap<number, number>;
  readonly preempt: readonly number[];
} {
  const tokens = new Map<number, number>();
  const preempt: number[] = [];
  let budget = tokenBudget;
  let available = instance.availableBlocks;
  let end = queue.running.indexOf(0);
  if (end < 0) end = queue.length;
  const started = end;
  const blocksFor = (i: number): number =>
    Math.ceil((queue.promptTokens[i] + queue.generatedTokens[i]) / instance.blockTokens);
  for (let i = 0; i < end && budget > 0; i++) {
    const more = blocksFor(i) - queue.blocks[i];
    while (more > available && end > i + 1) {
      end--;
      preempt.push(queue.id[end]);
      available += queue.blocks[end];
    }
    if (more > available) break;
    available -= more;
    const count = Math.min(budget, Math.max(1, queue.pendingTokens[i]));
    tokens.set(queue.id[i], count);
    budget -= count;
  }
  if (preempt.length > 0) return { tokens, preempt };
  for (let i = started; i < queue.length && budget > 0 && tokens.size < maxSequences; i++) {
    if (end + (i - started) >= maxSequences || blocksFor(i) > available) break;
    available -= blocksFor(i);
    const count = Math.min(budget, queue.pendingTokens[i]);
    tokens.set(queue.id[i], count);
    budget -= count;
  }
  return { tokens, preempt };
}

function queueOf(sequences: readonly ToySequence[], running: ReadonlySet<ToySequence>): QueueView {
  const known = (sequence: ToySequence) => sequence.promptTokens + sequence.generated;
  const decodes = (sequence: ToySequence) => sequence.generated > 0 && sequence.computed === known(sequence) - 1;
  return {
    length: sequences.length,
    id: Int32Array.from(sequences, (sequence) => sequence.id),
    promptTokens: Int32Array.from(sequences, (sequence) => sequence.promptTokens),
    pendingTokens: Int32Array.from(
      sequences,
      (sequence) => decodes(sequence) ? 0 : known(sequence) - sequence.computed,
    ),
    generatedTokens: Int32Array.from(sequences, (sequence) => sequence.generated),
    maxTokens: Int32Array.from(sequences, (sequence) => sequence.maxTokens),
    priority: Float64Array.from(sequences, (sequence) => sequence.priority),
    arrivedMs: Float64Array.from(sequences, (sequence) => sequence.arrivedMs),
    blocks: Int32Array.from(sequences, (sequence) => sequence.blocks),
    preemptions: Int32Array.from(sequences, (sequence) => sequence.preemptions),
    running: Uint8Array.from(sequences, (sequence) => running.has(sequence) ? 1 : 0),
  };
}
