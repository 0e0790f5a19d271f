/**
 * Statistics of repeated samples.
 *
 * @module
 */

/** Samples of one figure. */
export interface Summary {
  /** Smallest sample. */
  readonly min: number;
  /** Middle sample, or the mean of the two middle ones. */
  readonly median: number;
  /** Largest sample. */
  readonly max: number;
  /** All samples, in the order they were taken. */
  readonly samples: readonly number[];
}

/** Sums up samples. @throws {RangeError} when there are none, or one is not a finite number. */
export function summarize(samples: readonly number[]): Summary {
  if (samples.length === 0) throw new RangeError("Cannot sum up samples: wanted at least one, got none");
  const sorted = [...samples].sort((a, b) => a - b);
  if (!sorted.every(Number.isFinite)) {
    throw new RangeError(`Cannot sum up samples: wanted finite numbers, got ${samples.join(", ")}`);
  }
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { min: sorted[0], median, max: sorted[sorted.length - 1], samples: [...samples] };
}

/** Tokens of one stream that had arrived by a time. */
export interface Arrival {
  /** Time, ms. */
  readonly ms: number;
  /** Tokens of the stream so far, this arrival's included. */
  readonly tokens: number;
}

/**
 * Tokens a second of several streams together while all of them decode: from the arrival of the last stream's first
 * token to the first stream's last arrival.
 *
 * @throws {RangeError} when there is no such time.
 */
export function jointRate(streams: readonly (readonly Arrival[])[]): number {
  const from = Math.max(...streams.map((stream) => stream[0]?.ms ?? Infinity));
  const to = Math.min(...streams.map((stream) => stream.at(-1)?.ms ?? -Infinity));
  if (!(from < to)) {
    throw new RangeError(`Cannot rate ${streams.length} streams: wanted a time when all decode, got none`);
  }
  const countAt = (stream: readonly Arrival[], ms: number) => stream.findLast((a) => a.ms <= ms)?.tokens ?? 0;
  const tokens = streams.reduce((sum, stream) => sum + countAt(stream, to) - countAt(stream, from), 0);
  return tokens / (to - from) * 1e3;
}
