/**
 * Steps of a made-up instance, for tests.
 *
 * @module
 */
import type { TimedStep } from "./performance_model.ts";

/** Times that a test knows. */
export interface TrueTimes {
  /** Everything but attention, ms. */
  readonly restMs: (batch: number) => number;
  /** Attention, ms for each thousand tokens. */
  readonly attentionMs: number;
}

/** Random steps whose time deviates by up to `noise` of itself; the same for the same seed. */
export function* timedSteps(
  count: number,
  { restMs, attentionMs, noise = 0, batches = [1, 2, 3, 4, 6, 8, 12, 16], seed = 1 }: TrueTimes & {
    readonly noise?: number;
    readonly batches?: readonly number[];
    readonly seed?: number;
  },
): Generator<TimedStep> {
  let state = seed;
  const random = () => (state = Math.imul(state, 48271) % 0x7fffffff, (state >>> 0) / 0x100000000);
  for (let i = 0; i < count; i++) {
    const batch = batches[Math.floor(random() * batches.length)];
    const contextTokens = Math.floor(batch * (10 + random() * 2000));
    const ms = (restMs(batch) + attentionMs * contextTokens / 1000) * (1 + noise * (2 * random() - 1));
    yield { batch, tokens: batch, contextTokens, ms, remote: false };
  }
}
