/**
 * Turns of a step on its thread: how much may be enqueued, and how long the GPU is waited for, before others get one.
 *
 * @module
 */
import type { CudaStream } from "../../ffi/cuda/cuda.ts";
import type { CudaSignal } from "./cuda_signal.ts";
import type { StepStop } from "./device.ts";

/** How long a step with a budget waits for the GPU at a time, ms. */
const TURN_MS = 0.05;

/** The turns of one step. */
export class CudaTurns {
  /** Multiply-accumulates that may still be enqueued in this turn; Infinity when nobody else wants one. */
  left: number = Infinity;
  readonly #signal: CudaSignal;
  readonly #stream: CudaStream;

  /** Turns of a step on `stream`, whose end is signalled. */
  constructor({ signal, stream }: { readonly signal: CudaSignal; readonly stream: CudaStream }) {
    this.#signal = signal;
    this.#stream = stream;
  }

  /** Ends the turn when its budget is used up, then takes `work` multiply-accumulates from it. */
  *spend(work: number): Generator<StepStop, void> {
    if (this.left <= 0) yield { kind: "slice" };
    this.left -= work;
  }

  /** Waits for a signal; with a budget, a turn at a time. @throws {CudaError} when the GPU failed. */
  *wait(number: number): Generator<StepStop, void> {
    while (this.left < Infinity) {
      const until = performance.now() + TURN_MS;
      while (performance.now() < until) if (this.#signal.reached(number)) return;
      // A GPU that failed says so here.
      if (this.#stream.idle) break;
      yield { kind: "slice" };
    }
    this.#signal.wait(number, this.#stream);
  }
}
