/**
 * The engine: requests in, events out, one step at a time.
 *
 * @module
 */
import { BlockPool } from "../../scheduler/block_pool.ts";
import type { PolicyHost } from "../../scheduler/policy.ts";
import type { Sequence } from "../../scheduler/sequence.ts";
import { type CheckedPlan, logitRows, type PlannedSequence } from "../../scheduler/step_plan.ts";
import { StepScheduler } from "../../scheduler/step_scheduler.ts";
import type { Device, StepOutput } from "../device/device.ts";
import type { LogitRow } from "../sampling/row.ts";
import type { TokenTable } from "../text/codec.ts";
import type { Choice, TakenToken } from "./choice.ts";
import type { LiveRequest } from "./live_request.ts";
import { CapacityError, type EngineInfo, type EngineRequest, type EngineStats, type RequestEvent } from "./request.ts";
import { checkRequest } from "./request_check.ts";
import { RequestFactory } from "./request_factory.ts";

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
}

/** What the device made of a plan. */
type Outcome =
  | { readonly kind: "idle" }
  | { readonly kind: "ran"; readonly output: StepOutput }
  | { readonly kind: "failed"; readonly error: unknown };

/** Seconds after which a turned away request may try again. */
const RETRY_AFTER_SECONDS = 1;

/**
 * Continuous batching over one device. Single-threaded: methods are called between steps, or by a listener during one.
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
  readonly #options: Required<EngineOptions>;
  readonly #pool: BlockPool;
  readonly #scheduler: StepScheduler;
  readonly #factory: RequestFactory;
  readonly #requests = new Map<string, LiveRequest>();
  readonly #owners = new Map<Sequence, { readonly request: LiveRequest; readonly choice: Choice }>();
  readonly #startMs: number;
  #steps = 0;
  #stepMs = 0;
  #generatedTokens = 0;
  #lastTokenMs = 0;

  /**
   * Takes a device's KV pool into use.
   *
   * @throws {RangeError} when `maxBatch` sequences could not decode in one step of the device, or `maxModelLen` is no
   * positive integer.
   */
  constructor(options: EngineOptions) {
    this.#options = {
      ...options,
      mixedStepTokens: options.mixedStepTokens ?? options.device.info.maxStepTokens,
      now: options.now ?? (() => performance.now()),
      random: options.random ?? Math.random,
      maxQueue: options.maxQueue ?? 512,
      prefixCache: options.prefixCache ?? true,
    };
    const { device, policy, maxModelLen, maxBatch, mixedStepTokens, now, prefixCache } = this.#options;
    if (!Number.isInteger(maxModelLen) || maxModelLen < 1) {
      throw new RangeError(`Cannot make an engine: wanted maxModelLen of 1 or more, got ${maxModelLen}`);
    }
    const { blocks, blockTokens, maxStepTokens, maxLogitRows } = device.info;
    this.#startMs = now();
    this.#factory = new RequestFactory(this.#options);
    this.#pool = new BlockPool(blocks);
    this.#scheduler = new StepScheduler({
      pool: this.#pool,
      policy,
      blockTokens,
      maxStepTokens,
      mixedStepTokens,
      maxLogitRows,
      maxBatch,
      now,
      prefixCache,
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
      canEverFit: (promptTokens, maxTokens) => this.#scheduler.canEverFit(promptTokens, maxTokens),
    });
    this.#checkQueue(request);
    const live = this.#factory.create(request, listener);
    this.#admit(request);
    this.#requests.set(live.id, live);
    for (const choice of live.choices) {
      this.#owners.set(choice.sequence, { request: live, choice });
      this.#scheduler.add(choice.sequence);
    }
  }

  /** Ends a request now; its blocks are free when this returns. Unknown ids, and ids of ended requests, are ignored. */
  cancel(id: string): void {
    const request = this.#requests.get(id);
    if (request === undefined) return;
    this.#abandon(request, "cancelled");
    request.abort("cancelled");
    this.#scheduler.settle();
  }

  /** Computes one step for everything that can run. @returns whether there was anything. */
  step(): boolean {
    const plan = this.#scheduler.schedule();
    const outcome = this.#run(plan);
    return this.#commit(plan, outcome);
  }

  /** Current counters. */
  stats(): EngineStats {
    const { device, policy } = this.#options;
    const { waiting, running } = this.#scheduler.instance;
    const counters = this.#scheduler.counters;
    return {
      waiting,
      running,
      blocks: this.#pool.counts,
      blockTokens: device.info.blockTokens,
      steps: this.#steps,
      promptTokens: counters.promptTokens,
      generatedTokens: this.#generatedTokens,
      prefixQueries: counters.prefixQueries,
      prefixHits: counters.prefixHits,
      preemptions: counters.preemptions,
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
    if (!this.busy && this.#pool.counts.owned > 0) {
      throw new Error(`Engine is broken: it is idle, owned ${this.#pool.counts.owned} != 0`);
    }
  }

  #run(plan: CheckedPlan): Outcome {
    if (plan.entries.length === 0) return { kind: "idle" };
    for (const { sequence } of plan.entries) this.#owners.get(sequence)?.request.start();
    const { device, now } = this.#options;
    const startMs = now();
    try {
      const output = device.step(plan.entries.map(({ sequence, tokens, logits }) => ({
        tokens: sequence.pendingTokens(tokens),
        position: sequence.computed,
        blocks: sequence.blocks,
        logits,
      })));
      this.#steps++;
      return { kind: "ran", output };
    } catch (error) {
      return { kind: "failed", error };
    } finally {
      this.#stepMs += now() - startMs;
    }
  }

  #commit(plan: CheckedPlan, outcome: Outcome): boolean {
    let row = 0;
    for (const entry of plan.entries) {
      if (outcome.kind === "failed") this.#fail(entry.sequence, outcome.error);
      if (outcome.kind === "ran") this.#commitEntry(entry, { output: outcome.output, firstRow: row });
      row += logitRows(entry);
    }
    this.#scheduler.settle();
    return plan.entries.length > 0;
  }

  #commitEntry(entry: PlannedSequence, rows: { readonly output: StepOutput; readonly firstRow: number }): void {
    const { sequence } = entry;
    const owner = this.#owners.get(sequence);
    // A listener cancelled it earlier in this step.
    if (owner === undefined) return;
    const { request, choice } = owner;
    const last = entry.tokens === sequence.pending;
    let taken: TakenToken | undefined;
    try {
      const count = logitRows(entry);
      if (entry.logits === "all") {
        for (let i = 0; i < count; i++) request.takePromptRow(rowOf(rows.output, rows.firstRow + i));
      }
      if (last && sequence.maxTokens > 0) taken = choice.take(rowOf(rows.output, rows.firstRow + count - 1));
    } catch (error) {
      this.#fail(sequence, error);
      return;
    }
    this.#scheduler.commit(entry, taken?.id);
    // The books are closed before anyone is told: a listener may add and cancel.
    const end = taken?.end ?? (last && sequence.maxTokens === 0 ? choice.cut("length") : undefined);
    if (end !== undefined) this.#endSequence(sequence, end.reason);
    if (end !== undefined && request.choices.every(({ sequence }) => sequence.status === "ended")) {
      this.#requests.delete(request.id);
    }
    request.emitPrompt();
    if (taken !== undefined) {
      this.#generatedTokens++;
      this.#lastTokenMs = this.#options.now() - this.#startMs;
      request.emitToken(choice, taken);
    }
    if (end !== undefined) request.endChoice(choice, end);
  }

  #fail(sequence: Sequence, error: unknown): void {
    const request = this.#owners.get(sequence)?.request;
    // Another choice of the request failed before.
    if (request === undefined) return;
    this.#abandon(request, "error");
    const message = error instanceof Error ? error.message : String(error);
    request.abort("error", { message, code: "device_error", status: 500 });
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

function rowOf(output: StepOutput, row: number): LogitRow {
  return { logits: output.logits(row), logSumExp: output.logSumExp(row), top: output.top(row) };
}
