/**
 * Steps worth running at start, so that the performance model knows the instance before the first request.
 *
 * @module
 */

/** A decode step to run and time; what the KV holds does not matter. */
export interface Probe {
  /** Sequences. */
  readonly batch: number;
  /** Tokens of context over all sequences. */
  readonly contextTokens: number;
}

/** What an instance can run. */
export interface ProbeLimits {
  /** Most sequences of a step. */
  readonly maxBatch: number;
  /** Tokens that the KV pool holds. */
  readonly kvTokens: number;
  /** Most tokens of one sequence. */
  readonly maxContextTokens: number;
}

/** Times each step is run: three make a batch size count, one more is cold. */
const REPEATS = 4;
/** Context beyond which attention is known well enough, tokens of one sequence. */
const LONG_TOKENS = 2048;
/** Context of the other steps, tokens of one sequence. */
const SHORT_TOKENS = 64;

/**
 * The steps, in the order to run them: batch sizes in powers of two up to the largest, with little context each, then the
 * smallest and the largest batch with as much context as fits. Empty when not one sequence fits.
 */
export function probes({ maxBatch, kvTokens, maxContextTokens }: ProbeLimits): readonly Probe[] {
  const most = Math.min(maxBatch, kvTokens);
  const batches: number[] = [];
  for (let batch = 1; batch < most; batch *= 2) batches.push(batch);
  if (most >= 1) batches.push(Math.floor(most));
  const contextOf = (batch: number, tokens: number): number =>
    batch * Math.max(1, Math.floor(Math.min(tokens, maxContextTokens, kvTokens / batch)));
  const steps = [
    ...batches.map((batch) => ({ batch, contextTokens: contextOf(batch, SHORT_TOKENS) })),
    ...new Set([batches[0], batches[batches.length - 1]]).values().filter((batch) => batch !== undefined)
      .map((batch) => ({ batch, contextTokens: contextOf(batch, LONG_TOKENS) })),
  ];
  return steps.flatMap((step) => Array.from({ length: REPEATS }, () => step));
}
