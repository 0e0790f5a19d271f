/**
 * What the host accepts as answers of a scheduler policy.
 *
 * @module
 */
import { AnswerDraft } from "./draft.ts";
import { PolicyFault } from "./error.ts";
import type { Admission, QueueView, StepPlan, StepView } from "./types.ts";

/** A checked plan, by handle. */
export interface CheckedStepPlan {
  /** Tokens to compute. */
  readonly tokens: ReadonlyMap<number, number>;
  /** Running sequences to preempt. */
  readonly preempt: readonly number[];
}

/**
 * A copy of the admission.
 *
 * @throws {PolicyFault} when it is neither an acceptance nor a rejection with status 429 or 503 and a reason.
 */
export function checkAdmission(answer: unknown): Admission {
  if (typeof answer !== "object" || answer === null) {
    throw new PolicyFault(`Cannot accept the admission: wanted an object, got ${typeof answer}`);
  }
  const kind: unknown = Reflect.get(answer, "kind");
  if (kind === "accept") return { kind };
  if (kind !== "reject") {
    throw new PolicyFault(`Cannot accept the admission: wanted kind "accept" or "reject", got ${String(kind)}`);
  }
  const status: unknown = Reflect.get(answer, "status");
  const reason: unknown = Reflect.get(answer, "reason");
  if (status !== 429 && status !== 503) {
    throw new PolicyFault(`Cannot accept the rejection: wanted status 429 or 503, got ${String(status)}`);
  }
  if (typeof reason !== "string" || reason === "" || reason.length > 500) {
    throw new PolicyFault("Cannot accept the rejection: wanted a reason of 1 to 500 characters");
  }
  return { kind, status, reason };
}

/**
 * Checks that there is one finite rank for each sequence.
 *
 * @throws {PolicyFault} when there is not.
 */
export function checkRanks(ranks: Float64Array, queue: QueueView): void {
  if (ranks.length !== queue.length) {
    throw new PolicyFault(`Cannot accept the ranks: wanted ${queue.length}, got an array of ${ranks.length}`);
  }
  for (let i = 0; i < ranks.length; i++) {
    if (!Number.isFinite(ranks[i])) {
      throw new PolicyFault(
        `Cannot accept the ranks: wanted a finite rank for sequence ${queue.id[i]}, got ${ranks[i]}`,
      );
    }
  }
}

/** Indices of the queue by rank, ties by arrival and then id; by arrival alone without ranks. */
export function rankOrder(queue: QueueView, ranks?: Float64Array): Int32Array {
  const order = Int32Array.from({ length: queue.length }, (_, i) => i);
  return order.sort((a, b) =>
    (ranks === undefined ? 0 : ranks[a] - ranks[b]) || queue.arrivedMs[a] - queue.arrivedMs[b] ||
    queue.id[a] - queue.id[b]
  );
}

/** Takes down a plan and checks it call by call, against a view that the plugin cannot reach. */
export class PlanRecorder {
  readonly #step: StepView;
  readonly #indices: ReadonlyMap<number, number>;
  readonly #tokens = new Map<number, number>();
  readonly #preempt = new Set<number>();
  readonly #draft = new AnswerDraft("plan");
  #total = 0;
  /** What the plugin writes to. A call that breaks a rule throws and spoils the plan. */
  readonly out: StepPlan = Object.freeze({
    schedule: (id: number, tokens: number) => this.#draft.write(() => this.#schedule(id, tokens)),
    preempt: (id: number) => this.#draft.write(() => this.#takeBack(id)),
  });

  /** Makes an empty plan of a step. */
  constructor(step: StepView) {
    this.#step = step;
    this.#indices = new Map(Array.from(step.queue.id.subarray(0, step.queue.length), (id, index) => [id, index]));
  }

  /**
   * Ends the plan: later calls by the plugin throw and change nothing.
   *
   * @throws {PolicyFault} when it breaks a rule.
   */
  finish(): CheckedStepPlan {
    this.#draft.close();
    if (this.#tokens.size === 0) {
      throw new PolicyFault("Cannot accept the plan: wanted at least one scheduled sequence, got none");
    }
    const { maxSequences } = this.#step;
    if (this.#tokens.size > maxSequences) {
      throw new PolicyFault(
        `Cannot accept the plan: wanted at most ${maxSequences} sequences, got ${this.#tokens.size}`,
      );
    }
    for (const id of this.#preempt) {
      if (this.#tokens.has(id)) {
        throw new PolicyFault(`Cannot accept the plan: sequence ${id} is both scheduled and preempted`);
      }
    }
    return { tokens: this.#tokens, preempt: [...this.#preempt] };
  }

  #schedule(id: number, tokens: number): void {
    const pending = this.#step.queue.pendingTokens[this.#index(id)];
    if (this.#tokens.has(id)) throw new PolicyFault(`Cannot schedule sequence ${id}: it is scheduled already`);
    const most = Math.max(1, pending);
    if (!Number.isInteger(tokens) || tokens < 1 || tokens > most) {
      const phase = pending === 0 ? "it decodes" : `${pending} are pending`;
      throw new PolicyFault(
        `Cannot schedule sequence ${id}: wanted 1 to ${most} tokens (${phase}), got ${String(tokens)}`,
      );
    }
    this.#total += tokens;
    const { tokenBudget } = this.#step;
    if (this.#total > tokenBudget) {
      throw new PolicyFault(
        `Cannot schedule sequence ${id}: wanted at most ${tokenBudget} tokens in all, got ${this.#total}`,
      );
    }
    this.#tokens.set(id, tokens);
  }

  #takeBack(id: number): void {
    if (this.#step.queue.running[this.#index(id)] !== 1) {
      throw new PolicyFault(`Cannot preempt sequence ${id}: it does not run`);
    }
    this.#preempt.add(id);
  }

  #index(id: number): number {
    const index = this.#indices.get(id);
    if (index === undefined) throw new PolicyFault(`Cannot plan sequence ${String(id)}: it is not in the view`);
    return index;
  }
}
