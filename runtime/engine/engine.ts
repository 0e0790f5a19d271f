/**
 * The engine: requests in, events out, one step at a time.
 *
 * Longer than other files because a step's three parts (schedule, run, commit) and what may happen during it share one
 * state; everything that can stand alone is a file of its own.
 *
 * @module
 */
import { BlockPool } from "../../scheduler/block_pool.ts";
import type { BorrowedSlot } from "../../scheduler/lending/borrowed.ts";
import type { ClusterMemory } from "../../scheduler/lending/cluster_memory.ts";
import { GROWTH_TOKENS } from "../../scheduler/lending/room.ts";
import type { PolicyHost } from "../../scheduler/policy.ts";
import type { Sequence } from "../../scheduler/sequence.ts";
import { type CheckedPlan, logitRows, type PlannedSequence } from "../../scheduler/step_plan.ts";
import { StepScheduler } from "../../scheduler/step_scheduler.ts";
import { type Device, type FollowingStep, SEGMENT_TOKENS, type StepOutput } from "../device/device.ts";
import { DEVICE_LOST_CODE, DeviceLostError } from "../device/device_lost_error.ts";
import type { LogitRow } from "../sampling/row.ts";
import type { TokenTable } from "../text/codec.ts";
import type { Choice, ChoiceEnd, TakenToken } from "./choice.ts";
import type { LiveRequest, RequestFailure } from "./live_request.ts";
import { CapacityError, type EngineInfo, type EngineRequest, type EngineStats, type RequestEvent } from "./request.ts";
import { checkRequest } from "./request_check.ts";
import { RequestFactory } from "./request_factory.ts";
import { DeviceRunner, type RunSequence, type StepOutcome, type StepRunner } from "./step_runner.ts";

/** Makes an {@linkcode Engine}. */
export interface EngineOptions {
  /** Computes; stays the caller's. Its whole KV pool is the engine's while the engine is in use. */
  readonly device: Device;
  /** Ranks, admits and may plan. */
  readonly policy: PolicyHost;
  /** Bytes of every token. */
  readonly vocabulary: TokenTable;
  /** Ids that end generation. */
  readonly eos: readonly number[];
  /** Longest prompt plus output, tokens. */
  readonly maxModelLen: number;
  /** Most running sequences; at most `mixedStepTokens` and the device's rows of logits. */
  readonly maxBatch: number;
  /** Most tokens of a step in which a sequence decodes: its next token waits for all of them. @default {the device's} */
  readonly mixedStepTokens?: number;
  /** Served model's name. */
  readonly modelName: string;
  /** Digest of the model; KV is shared under the same digest only. */
  readonly modelDigest: string;
  /** Monotonic clock, ms. @default {performance.now} */
  readonly now?: () => number;
  /** Uniform in [0, 1), for requests without a seed. @default {Math.random} */
  readonly random?: () => number;
  /** Most requests that wait; more are turned away with status 429. @default {512} */
  readonly maxQueue?: number;
  /** Whether the KV of equal prefixes is shared. @default {true} */
  readonly prefixCache?: boolean;
  /** Runs the steps. @default {the device alone} */
  readonly runner?: StepRunner;
  /** Tokens of one segment, the unit in which memory is borrowed. @default {the device's} */
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

/** A choice that its resumed tokens complete. */
interface ResumedEnd {
  readonly request: LiveRequest;
  readonly choice: Choice;
  readonly end: ChoiceEnd;
}

/** Seconds after which a turned away request may try again. */
const RETRY_AFTER_SECONDS = 1;

/**
 * Continuous batching over one device. Single-threaded. While a step is under way requests may be added and cancelled, and
 * counters read.
 *
 * @example
 * ```ts ignore
 * const engine = new Engine({ device, policy, vocabulary, eos, maxModelLen: 2048, maxBatch: 16, modelName, modelDigest });
 * engine.add({ id: "1", prompt: [1, 2, 3], maxTokens: 16 }, (event) => console.log(event));
 * while (engine.step());
 * ```
 */
export class Engine {
  /** Facts fixed at start. */
  readonly info: EngineInfo;
  readonly #options: Required<Omit<EngineOptions, "reach" | "soon" | "capacity">>;
  /** Blocks of the device; others may lend what is available between steps. */
  readonly pool: BlockPool;
  readonly #scheduler: StepScheduler;
  readonly #factory: RequestFactory;
  readonly #requests = new Map<string, LiveRequest>();
  readonly #owners = new Map<Sequence, { readonly request: LiveRequest; readonly choice: Choice }>();
  readonly #resumedEnds: ResumedEnd[] = [];
  readonly #startMs: number;
  #underWay = false;
  #broken: { readonly error: unknown } | undefined;
  #lostSteps = 0;
  #steps = 0;
  #stepMs = 0;
  #generatedTokens = 0;
  #lastTokenMs = 0;

  /**
   * Takes a device's KV pool into use.
   *
   * @throws {RangeError} when `maxBatch` sequences could not decode in one step of the device, `maxModelLen` is no positive
   * integer, or a segment is not made of whole blocks.
   */
  constructor(options: EngineOptions) {
    this.#options = {
      ...options,
      mixedStepTokens: options.mixedStepTokens ?? options.device.info.maxStepTokens,
      now: options.now ?? (() => performance.now()),
      random: options.random ?? Math.random,
      maxQueue: options.maxQueue ?? 512,
      prefixCache: options.prefixCache ?? true,
      runner: options.runner ?? new DeviceRunner(options.device),
      segmentTokens: options.segmentTokens ?? SEGMENT_TOKENS,
      onRelease: options.onRelease ?? (() => {}),
      growthTokens: options.growthTokens ?? GROWTH_TOKENS,
    };
    const { device, policy, maxModelLen, maxBatch, mixedStepTokens, now, prefixCache } = this.#options;
    const { segmentTokens, onRelease, growthTokens } = this.#options;
    if (!Number.isInteger(maxModelLen) || maxModelLen < 1) {
      throw new RangeError(`Cannot make an engine: wanted maxModelLen of 1 or more, got ${maxModelLen}`);
    }
    const { blocks, blockTokens, maxStepTokens, maxLogitRows } = device.info;
    this.#startMs = now();
    this.#factory = new RequestFactory(this.#options);
    this.pool = new BlockPool(blocks);
    this.#scheduler = new StepScheduler({
      pool: this.pool,
      policy,
      blockTokens,
      maxStepTokens,
      mixedStepTokens,
      maxLogitRows,
      maxBatch,
      now,
      prefixCache,
      // A GPU begins a step before it is asked for it.
      ahead: device.info.kind === "cuda",
      segmentTokens,
      reach: options.reach,
      soon: options.soon,
      capacity: options.capacity,
      onRelease,
      growthTokens,
    });
    this.info = {
      model: options.modelName,
      digest: options.modelDigest,
      maxModelLen,
      vocab: device.config.vocab,
      device: device.info.description,
      weightBytes: device.info.weightBytes,
      kvBytes: blocks * device.info.blockBytes,
      kvTokens: blocks * blockTokens,
      scheduler: policy.name,
    };
  }

  /** Whether a request is live. */
  get busy(): boolean {
    return this.#requests.size > 0;
  }

  /**
   * The memory as other members see it. While a step is under way its methods may be called too; what they change of a
   * table counts from the next step on.
   */
  get memory(): ClusterMemory {
    return this.#scheduler.memory;
  }

  /**
   * Longest prompt plus output that could run now, or within seconds where newcomers fill gently, tokens: what this instance
   * and those that lend to it can hold.
   */
  get reachableModelLen(): number {
    return Math.min(this.info.maxModelLen, this.#scheduler.reachableTokens);
  }

  /** Blocks that the waiting requests take with all they know: what would let them start. */
  get waitingBlocks(): number {
    return this.#scheduler.waitingBlocks;
  }

  /**
   * Whether requests that are live and cannot run wait for others: for memory elsewhere, for moves, or for lent blocks. Where
   * it is false, a step for live requests always finds work.
   */
  get waitsForMemory(): boolean {
    return this.#scheduler.waitsForMemory;
  }

  /**
   * Takes a request. Its events go to `listener`, the first ones during a later step; the last one is `end`. The listener
   * must not throw; it may add and cancel requests.
   *
   * @throws {CapacityError} when it can never fit, or the queue is full, or the policy rejects it.
   * @throws {RangeError} when a field is out of range or the id is that of a live request.
   */
  add(request: EngineRequest, listener: (event: RequestEvent) => void): void {
    if (this.#requests.has(request.id)) {
      throw new RangeError(`Cannot run request ${request.id}: wanted a new id, a request of that id is live`);
    }
    checkRequest(request, {
      vocab: this.info.vocab,
      maxModelLen: this.info.maxModelLen,
      kvTokens: this.info.kvTokens,
      reachableTokens: this.#scheduler.reachableTokens,
      canEverFit: (promptTokens, maxTokens) => this.#scheduler.canEverFit(promptTokens, maxTokens),
    });
    this.#checkQueue(request);
    const live = this.#factory.create(request, listener);
    this.#admit(request);
    this.#requests.set(live.id, live);
    for (const choice of live.choices) {
      const end = choice.resumedEnd;
      if (end !== undefined) {
        choice.sequence.advance({ kind: "end" });
        this.#resumedEnds.push({ request: live, choice, end });
        continue;
      }
      this.#owners.set(choice.sequence, { request: live, choice });
      this.#scheduler.add(choice.sequence);
    }
  }

  /**
   * Ends a request now; its blocks are free when this returns, or when the step under way is over. Unknown ids, and ids of
   * ended requests, are ignored.
   */
  cancel(id: string): void {
    const request = this.#requests.get(id);
    if (request === undefined) return;
    this.#abandon(request, "cancelled");
    request.abort("cancelled");
    this.#scheduler.settle();
  }

  /**
   * Runs one step for everything that can run, and calls `done` once it is committed, maybe before this returns. `worked`
   * says whether there was anything. A listener may not run another step.
   *
   * @throws {Error} when a step is under way, or the engine has broken one of its invariants: it can be used no more. What
   * breaks it in a step that ends later is thrown by the next call.
   */
  run(done: (worked: boolean) => void): void {
    this.checkSound();
    if (this.#underWay) throw new Error("Cannot run a step: another one is under way");
    // Before the plan is made: a listener may cancel what is in it.
    const resumed = this.#tellResumedEnds();
    for (const sequence of this.#scheduler.hopeless) this.#giveUp(sequence);
    const plan = this.#scheduler.schedule();
    if (plan.entries.length === 0) {
      this.#scheduler.settle();
      done(resumed || this.#scheduler.hopeless.length > 0);
      return;
    }
    const { runner, now } = this.#options;
    const startMs = now();
    for (const { sequence } of plan.entries) this.#owners.get(sequence)?.request.start();
    this.#scheduler.beginStep(plan);
    this.#underWay = true;
    let returned = false;
    runner.run(this.#batch(plan), (outcome) => {
      this.#stepMs += now() - startMs;
      try {
        this.#commit(plan, outcome);
      } catch (error) {
        // A runner's own stack is no place for it.
        this.#broken = { error };
        if (!returned) return;
      }
      done(true);
    }, { following: followingStep(plan) });
    returned = true;
    this.checkSound();
  }

  /**
   * {@linkcode run} for runners that finish at once. @returns whether there was anything.
   *
   * @throws {Error} when the runner did not finish, and as {@linkcode run} does.
   */
  step(): boolean {
    let finished: { readonly worked: boolean } | undefined;
    this.run((worked) => finished = { worked });
    if (finished === undefined) {
      throw new Error("Cannot run a step at once: the runner has not finished it when it returned");
    }
    return finished.worked;
  }

  /** Current counters. */
  stats(): EngineStats {
    const { device, policy } = this.#options;
    const { waiting, running } = this.#scheduler.instance;
    const counters = this.#scheduler.counters;
    return {
      waiting,
      running,
      blocks: { ...this.pool.counts, borrowed: this.memory.borrowedBlocks },
      blockTokens: device.info.blockTokens,
      steps: this.#steps,
      promptTokens: counters.promptTokens,
      generatedTokens: this.#generatedTokens,
      prefixQueries: counters.prefixQueries,
      prefixHits: counters.prefixHits,
      preemptions: counters.preemptions,
      repairs: counters.repairs,
      repairedTokens: counters.repairedTokens,
      lostSteps: this.#lostSteps,
      policyFallbacks: { ...policy.fallbacks, plan: (policy.fallbacks.plan ?? 0) + counters.refusedPlans },
      lastTokenMs: this.#lastTokenMs,
      stepSeconds: this.#stepMs / 1000,
    };
  }

  /**
   * Checks the pool, the block tables and the requests against each other.
   *
   * @throws {Error} with the arithmetic that does not hold.
   */
  checkIntegrity(): void {
    this.#scheduler.checkIntegrity();
    const { waiting, running } = this.#scheduler.instance;
    if (waiting + running !== this.#owners.size) {
      throw new Error(`Engine is broken: waiting ${waiting} + running ${running} != live ${this.#owners.size}`);
    }
    const { owned } = this.pool.counts;
    const { movingBlocks } = this.#scheduler;
    if (!this.busy && !this.#underWay && owned !== movingBlocks) {
      throw new Error(`Engine is broken: it is idle, owned ${owned} != ${movingBlocks} of moves under way`);
    }
  }

  /** Does nothing but throw. @throws {Error} what broke the engine, where something has: it can be used no more. */
  checkSound(): void {
    if (this.#broken !== undefined) throw this.#broken.error;
  }

  #tellResumedEnds(): boolean {
    const ends = this.#resumedEnds.splice(0);
    for (const { request, choice, end } of ends) {
      this.#forgetEnded(request);
      request.endChoice(choice, end);
    }
    return ends.length > 0;
  }

  #commit(plan: CheckedPlan, outcome: StepOutcome): void {
    // Nothing touches the step's blocks any more: what a listener cancels from here on is free at once.
    this.#underWay = false;
    this.#scheduler.endStep();
    switch (outcome.kind) {
      case "ran": {
        this.#steps++;
        let firstRow = 0;
        for (const entry of plan.entries) {
          this.#commitEntry(entry, { output: outcome.output, firstRow });
          firstRow += logitRows(entry);
        }
        break;
      }
      case "failed":
        for (const { sequence } of plan.entries) this.#fail(sequence, outcome.error);
        if (outcome.error instanceof DeviceLostError) this.#broken = { error: outcome.error };
        break;
      case "lost":
        this.#lostSteps++;
        break;
      default:
        outcome satisfies never;
    }
    this.#scheduler.closeStep();
    this.#scheduler.settle();
  }

  #commitEntry(entry: PlannedSequence, rows: { readonly output: StepOutput; readonly firstRow: number }): void {
    const { sequence } = entry;
    const owner = this.#owners.get(sequence);
    // It was cancelled while the step was under way, or by a listener earlier in this commit.
    if (owner === undefined) return;
    const { request, choice } = owner;
    const { last } = entry;
    const { vocab } = this.info;
    const rowAt = (index: number) => rowOf(rows.output, { row: rows.firstRow + index, vocab });
    let taken: TakenToken | undefined;
    try {
      const count = logitRows(entry);
      if (entry.logits === "all") {
        for (let i = 0; i < count; i++) request.takePromptRow(rowAt(i));
      }
      if (last && sequence.maxTokens > 0) taken = choice.take(rowAt(count - 1));
    } catch (error) {
      this.#fail(sequence, error);
      return;
    }
    this.#scheduler.commit(entry, taken?.id);
    // The books are closed before anyone is told: a listener may add and cancel.
    const end = taken?.end ?? (last && sequence.maxTokens === 0 ? choice.cut("length") : undefined);
    if (end !== undefined) this.#endSequence(sequence, end.reason);
    this.#forgetEnded(request);
    request.emitPrompt();
    if (taken !== undefined) {
      this.#generatedTokens++;
      this.#lastTokenMs = this.#options.now() - this.#startMs;
      request.emitToken(choice, taken);
    }
    if (end !== undefined) request.endChoice(choice, end);
  }

  #batch(plan: CheckedPlan): RunSequence[] {
    return plan.entries.map(({ sequence, position, tokens, logits, last }) => ({
      tokens: sequence.tokensFrom(position, tokens),
      position,
      blocks: sequence.blocks,
      logits,
      next: last ? this.#owners.get(sequence)?.choice.next : undefined,
      ...sequence.remoteBelow(position),
    }));
  }

  #forgetEnded(request: LiveRequest): void {
    if (request.choices.every(({ sequence }) => sequence.status === "ended")) this.#requests.delete(request.id);
  }

  #fail(sequence: Sequence, error: unknown): void {
    const message = error instanceof Error ? error.message : String(error);
    const code = error instanceof DeviceLostError ? DEVICE_LOST_CODE : "device_error";
    this.#abort(sequence, { message, code, status: 500 });
  }

  /** Ends a request that grew, or whose creditors left, beyond what is within reach. */
  #giveUp(sequence: Sequence): void {
    const message = `Cannot go on with the request: its ${sequence.length} tokens exceed the ` +
      `${this.reachableModelLen} that can be reached now (longest context ${this.info.maxModelLen})`;
    this.#abort(sequence, { message, code: "cluster_capacity", status: 503 });
  }

  #abort(sequence: Sequence, failure: RequestFailure): void {
    const request = this.#owners.get(sequence)?.request;
    // Another choice of the request failed before.
    if (request === undefined) return;
    this.#abandon(request, "error");
    request.abort("error", failure);
  }

  #abandon(request: LiveRequest, reason: string): void {
    this.#requests.delete(request.id);
    for (const { sequence } of request.choices) this.#endSequence(sequence, reason);
  }

  #endSequence(sequence: Sequence, reason: string): void {
    if (this.#owners.delete(sequence)) this.#scheduler.end(sequence, reason);
  }

  #checkQueue({ id }: EngineRequest): void {
    const { maxQueue } = this.#options;
    const waiting = [...this.#requests.values()].filter((live) => live.choices[0].sequence.status === "waiting").length;
    if (waiting < maxQueue) return;
    throw new CapacityError(`Cannot run request ${id}: the queue holds ${maxQueue} requests already`, {
      status: 429,
      code: "queue_full",
      retryAfterSeconds: RETRY_AFTER_SECONDS,
    });
  }

  #admit(request: EngineRequest): void {
    const { policy } = this.#options;
    const { id, prompt, maxTokens, priority = 0, tenant = "" } = request;
    const admission = policy.admit(
      { id, promptTokens: prompt.length, maxTokens, priority, tenant },
      this.#scheduler.instance,
    );
    if (admission.kind === "accept") return;
    throw new CapacityError(`Cannot run request ${id}: policy ${policy.name} rejects it: ${admission.reason}`, {
      status: admission.status,
      code: "rejected_by_policy",
      retryAfterSeconds: RETRY_AFTER_SECONDS,
    });
  }
}

/** The step that a plan foresees, as a device takes it. */
function followingStep({ entries, following }: CheckedPlan): FollowingStep | undefined {
  if (following.length === 0) return undefined;
  const indices = new Map(entries.map(({ sequence }, index) => [sequence, index]));
  return {
    batch: following.map(({ sequence, position, tokens, logits, chosen }) => ({
      tokens: chosen ? [0] : sequence.tokensFrom(position, tokens),
      position,
      blocks: sequence.blocks,
      logits,
    })),
    sources: following.map(({ sequence, chosen }) => chosen ? indices.get(sequence) : undefined),
  };
}

function rowOf(output: StepOutput, { row, vocab }: { readonly row: number; readonly vocab: number }): LogitRow {
  return {
    vocab,
    get logits() {
      return output.logits(row);
    },
    logSumExp: output.logSumExp(row),
    top: output.top(row),
  };
}
