/**
 * Notices sequences that a policy forgets.
 *
 * @module
 */
import type { CheckedStepPlan } from "./answers.ts";
import { PolicyFault } from "./error.ts";
import type { QueueView } from "./types.ts";

interface Progress {
  /** Most KV tokens it ever had; what is computed again after a preemption is no progress. */
  tokens: number;
  sinceMs: number;
  seenMs: number;
}

/** Follows how long each sequence has made no progress. */
export class ProgressTracker {
  readonly #limitMs: number;
  readonly #sequences = new Map<number, Progress>();

  /** Makes one; a sequence starves after `limitMs` without progress. */
  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  /** Takes in the present state of the sequences. @returns whether each starves, or undefined when none does. */
  observe(queue: QueueView, nowMs: number): readonly boolean[] | undefined {
    let starving: boolean[] | undefined;
    for (let i = 0; i < queue.length; i++) {
      const tokens = queue.promptTokens[i] + queue.generatedTokens[i] - queue.pendingTokens[i];
      const progress = this.#sequences.get(queue.id[i]);
      if (progress === undefined) {
        this.#sequences.set(queue.id[i], { tokens, sinceMs: queue.arrivedMs[i], seenMs: nowMs });
        continue;
      }
      progress.seenMs = nowMs;
      if (tokens > progress.tokens) {
        progress.tokens = tokens;
        progress.sinceMs = nowMs;
      } else if (nowMs - progress.sinceMs > this.#limitMs) {
        starving ??= new Array<boolean>(queue.length).fill(false);
        starving[i] = true;
      }
    }
    if (this.#sequences.size > 2 * queue.length + 1024) this.#prune(nowMs);
    return starving;
  }

  /** Forgets a sequence that ended. */
  forget(id: number): void {
    this.#sequences.delete(id);
  }

  #prune(nowMs: number): void {
    for (const [id, progress] of this.#sequences) {
      if (nowMs - progress.seenMs > this.#limitMs) this.#sequences.delete(id);
    }
  }
}

/**
 * Checks that nobody overtakes a starving sequence in the queue.
 *
 * @throws {PolicyFault} when one waits behind a later arrival that does not starve.
 */
export function checkRankFairness(order: Int32Array, queue: QueueView, starving: readonly boolean[]): void {
  let latestMs = -Infinity;
  for (const i of order) {
    if (queue.running[i] === 1) continue;
    if (!starving[i]) latestMs = Math.max(latestMs, queue.arrivedMs[i]);
    else if (latestMs > queue.arrivedMs[i]) throw starvation(queue.id[i]);
  }
}

/**
 * Checks that a plan serves starving sequences.
 *
 * @throws {PolicyFault} when it leaves out a starving running sequence in favour of one that does not starve, or
 * a starving waiting one in favour of a later arrival.
 */
export function checkPlanFairness(plan: CheckedStepPlan, queue: QueueView, starving: readonly boolean[]): void {
  const served = Array.from(queue.id, (id, i) => ({ i, id })).filter(({ i, id }) =>
    !starving[i] && plan.tokens.has(id)
  );
  for (let i = 0; i < queue.length; i++) {
    if (!starving[i] || plan.tokens.has(queue.id[i])) continue;
    const passedOver = queue.running[i] === 1 ? served.length > 0 : served.some((other) => {
      return queue.running[other.i] === 0 && queue.arrivedMs[other.i] > queue.arrivedMs[i];
    });
    if (passedOver) throw starvation(queue.id[i]);
  }
}

function starvation(id: number): PolicyFault {
  return new PolicyFault(`Cannot leave sequence ${id} behind: it starves while others progress`, {
    cause: "starvation",
  });
}
