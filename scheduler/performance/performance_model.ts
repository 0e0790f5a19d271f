/**
 * What a step of this instance takes, learnt from its own steps.
 *
 * @module
 */
import type { PerformanceReport } from "../protocol/messages.ts";
import { fitSteps, stepMs, type StepTimes } from "./step_fit.ts";
import { StepSamples } from "./step_samples.ts";

/** A step that was run. */
export interface TimedStep {
  /** Sequences in it. */
  readonly batch: number;
  /** Tokens it computed; a step that computes more than one a sequence is prefill and teaches nothing about decode. */
  readonly tokens: number;
  /** Tokens of context that were attended on this instance, over all sequences, those of other members included. */
  readonly contextTokens: number;
  /** Time from its start to its end, ms. */
  readonly ms: number;
  /** Whether parts of its context were attended by other members. */
  readonly remote: boolean;
  /** Part of its time in which it did nothing but wait for them, ms; a remote step that does not say teaches nothing. */
  readonly waitMs?: number;
}

/** Samples kept. */
const CAPACITY = 1024;
/** Steps between fits: an eighth of those so far within these bounds, so that fitting costs next to nothing. */
const LEAST_FIT_STEPS = 8;
const MOST_FIT_STEPS = 256;
/** Steps that the error is taken over. */
const ERROR_STEPS = 64;

/**
 * The paper's model of a step, T(b, S) = W(b)/f(b) + S/g(S), fitted to decode steps as they come and kept fresh: recent steps
 * count more, outliers (a pause for garbage, a cold start) not at all, and memory is bounded.
 */
export class PerformanceModel {
  readonly #samples = new StepSamples(CAPACITY);
  #times: StepTimes | undefined;
  #steps = 0;
  #stepsUnfitted = 0;
  #errors: number[] = [];

  /** Whether it knows enough to predict: batch sizes were seen often enough, and with contexts that differ. */
  get isReady(): boolean {
    return this.#times !== undefined;
  }

  /** Takes a step in. Steps with prefill, waits of unknown length and times that are none are left out. */
  observe({ batch, tokens, contextTokens, ms, remote, waitMs = remote ? NaN : 0 }: TimedStep): void {
    const ownMs = ms - waitMs;
    if (!Number.isInteger(batch) || batch < 1 || tokens !== batch) return;
    if (!(contextTokens >= 0 && contextTokens < Infinity && ownMs > 0 && ownMs < Infinity)) return;
    if (this.#times !== undefined) {
      // Before the step is learnt from: the error is that of predictions, not of a description.
      this.#errors.push(Math.abs(ownMs - stepMs(this.#times, { batch, contextTokens })) / ownMs);
      if (this.#errors.length > ERROR_STEPS) this.#errors.shift();
    }
    this.#samples.add({ batch, contextTokens, ms: ownMs, step: this.#steps++ });
    const interval = Math.min(Math.max(this.#steps / 8, LEAST_FIT_STEPS), MOST_FIT_STEPS);
    if (++this.#stepsUnfitted < interval) return;
    this.#stepsUnfitted = 0;
    this.#times = fitSteps(this.#samples.all(), this.#steps) ?? this.#times;
  }

  /**
   * Time of a decode step on this instance, ms, waits for other members left out.
   *
   * @param batch Sequences.
   * @param contextTokens Tokens of context that are attended on this instance, over all sequences.
   * @throws {RangeError} when the model is not ready.
   */
  predict(batch: number, contextTokens: number): number {
    if (this.#times === undefined) {
      throw new RangeError(`Cannot predict a step: wanted steps of several contexts first, got ${this.#steps} steps`);
    }
    return stepMs(this.#times, { batch, contextTokens });
  }

  /** The fit and its error; undefined until it is ready. */
  report(): PerformanceReport | undefined {
    if (this.#times === undefined) return undefined;
    const errors = this.#errors.length > 0 ? this.#errors : this.#fitErrors(this.#times);
    return {
      batch: [...this.#times.batch],
      batchMs: [...this.#times.batchMs],
      attentionMs: this.#times.attentionMs,
      error: errors.reduce((sum, error) => sum + error, 0) / errors.length,
      steps: this.#steps,
    };
  }

  /** Errors over the samples themselves: all there is before the first prediction. */
  #fitErrors(times: StepTimes): readonly number[] {
    return this.#samples.all().map((sample) => Math.abs(sample.ms - stepMs(times, sample)) / sample.ms);
  }
}
