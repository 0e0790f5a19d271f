/**
 * Turns of a step on its thread: how much may be enqueued, and how long the GPU is waited for, before others get one.
 *
 * @module
 */
import type { CudaStream } from "../../ffi/cuda/cuda.ts";
import type { CudaSignal } from "./cuda_signal.ts";
import type { StepStop } from "./device.ts";

/**
 * Multiply-accumulates of a budget that stand for a millisecond in which the thread waits for the GPU: a member's smallest
 * budget is a twentieth of one, so that who has memory here is not kept waiting.
 */
const WORK_PER_MS = 800e6;

/** The turns of one step. */
export class CudaTurns {
  #left = Infinity;
  #turnMs = Infinity;
  readonly #signal: CudaSignal;
  readonly #stream: CudaStream;

  /** Turns of a step on `stream`, whose end is signalled. */
  constructor({ signal, stream }: { readonly signal: CudaSignal; readonly stream: CudaStream }) {
    this.#signal = signal;
    this.#stream = stream;
  }

  /** Begins a turn of so many multiply-accumulates; Infinity when nobody else wants one. */
  begin(budget: number): void {
    this.#left = budget;
    this.#turnMs = budget / WORK_PER_MS;
  }

  /** Ends the turn when its budget is used up, then takes `work` multiply-accumulates from it. */
  *spend(work: number): Generator<StepStop, void> {
    if (this.#left <= 0) yield { kind: "slice" };
    this.#left -= work;
  }

  /** Waits for a signal; with a budget, a turn at a time. @throws {CudaError} when the GPU failed. */
  *wait(number: number): Generator<StepStop, void> {
    while (this.#left < Infinity) {
      const until = performance.now() + this.#turnMs;
      do if (this.#signal.reached(number)) return; while (performance.now() < until);
      // A GPU that failed says so here.
      if (this.#stream.idle) break;
      yield { kind: "slice" };
    }
    this.#signal.wait(number, this.#stream);
  }
}
