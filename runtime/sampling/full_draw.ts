/**
 * The full path, and the definition of sampling: walk all tokens in total order.
 *
 * Tokens fall into buckets by distance from the largest logit; only the bucket in which a walk ends is put in order, so
 * that a draw costs a few passes over the row instead of a sort.
 *
 * @module
 */
import { expOfMinus } from "./exponential.ts";
import type { Filters } from "./filters.ts";
import { badLogits, precedes, type Token } from "./row.ts";

const BUCKETS = 2048;
const BUCKETS_PER_UNIT = 32;
const BUCKETED = BUCKETS / BUCKETS_PER_UNIT;

/** A row in buckets: how many tokens each holds and their mass relative to that of the first token. */
interface Buckets {
  readonly logits: Float32Array;
  readonly largest: number;
  readonly inverseTemperature: number;
  readonly counts: Int32Array;
  readonly masses: Float64Array;
}

/** A prefix of the total order that ends with `last`. */
interface Prefix {
  readonly count: number;
  readonly mass: number;
  readonly last: Token;
}

/**
 * The token that `u`, uniform in [0, 1), selects among those of the (adjusted) logits that the filters keep.
 *
 * @throws {RangeError} when a logit is NaN or Infinity, or all are -Infinity.
 */
export function drawFromAll(u: number, logits: Float32Array, filters: Filters): number {
  const buckets = fillBuckets(logits, filters.inverseTemperature);
  let mass = buckets.masses.reduce((sum, each) => sum + each, 0);
  let cut: Prefix | undefined;
  const shorten = (prefix: Prefix) => {
    if (cut !== undefined && prefix.count > cut.count) return;
    cut = prefix;
    mass = prefix.mass;
  };
  if (filters.topK < logits.length) shorten(walk(buckets, (count) => count >= filters.topK));
  if (filters.topP < 1) {
    const target = filters.topP * mass;
    shorten(walk(buckets, (_, reached) => reached >= target));
  }
  if (filters.depth < Infinity) shorten(within(buckets, filters.depth));
  const target = u * mass;
  const drawn = walk(buckets, (_, reached) => reached > target);
  // Sums in another order may differ in the last bit and lead one token past the cut.
  return (cut !== undefined && drawn.count > cut.count ? cut : drawn).last.id;
}

/**
 * The first token of the total order.
 *
 * @throws {RangeError} when a logit is NaN or Infinity, or all are -Infinity.
 */
export function firstToken(logits: Float32Array): Token {
  let largest = -Infinity;
  let largestId = 0;
  let valid = true;
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id];
    if (logit > largest) {
      largest = logit;
      largestId = id;
    } else if (logit !== logit) valid = false;
  }
  if (!valid || !Number.isFinite(largest)) throw badLogits(logits);
  return { id: largestId, logit: largest };
}

function fillBuckets(logits: Float32Array, inverseTemperature: number): Buckets {
  const largest = firstToken(logits).logit;
  const counts = new Int32Array(BUCKETS);
  const masses = new Float64Array(BUCKETS);
  for (let id = 0; id < logits.length; id++) {
    const distance = largest - logits[id];
    if (distance === Infinity) continue;
    const bucket = distance < BUCKETED ? (distance * BUCKETS_PER_UNIT) | 0 : BUCKETS - 1;
    counts[bucket]++;
    masses[bucket] += expOfMinus(distance * inverseTemperature);
  }
  return { logits, largest, inverseTemperature, counts, masses };
}

/** The shortest prefix at which `ends` holds, which must be monotone; all tokens when it never does. */
function walk(buckets: Buckets, ends: (count: number, mass: number) => boolean): Prefix {
  const { counts, masses, largest, inverseTemperature } = buckets;
  let count = 0;
  let mass = 0;
  let lastBucket = 0;
  for (let bucket = 0; bucket < BUCKETS; bucket++) {
    if (counts[bucket] === 0) continue;
    lastBucket = bucket;
    if (ends(count + counts[bucket], mass + masses[bucket])) {
      let reached = mass;
      const tokens = ordered(buckets, bucket);
      for (let i = 0; i < tokens.length; i++) {
        reached += expOfMinus((largest - tokens[i].logit) * inverseTemperature);
        if (ends(count + i + 1, reached)) return { count: count + i + 1, mass: reached, last: tokens[i] };
      }
    }
    count += counts[bucket];
    mass += masses[bucket];
  }
  const tokens = ordered(buckets, lastBucket);
  return { count, mass, last: tokens[tokens.length - 1] };
}

/** The tokens of a bucket in total order. */
function ordered({ logits, largest }: Buckets, bucket: number): Token[] {
  const tokens: Token[] = [];
  const nearest = bucket / BUCKETS_PER_UNIT;
  const farthest = bucket === BUCKETS - 1 ? Infinity : (bucket + 1) / BUCKETS_PER_UNIT;
  for (let id = 0; id < logits.length; id++) {
    const distance = largest - logits[id];
    if (distance >= nearest && distance < farthest) tokens.push({ id, logit: logits[id] });
  }
  return tokens.sort((a, b) => precedes(a, b) ? -1 : 1);
}

/** The prefix of the tokens whose scaled distance from the largest logit is at most `depth`. */
function within({ logits, largest, inverseTemperature }: Buckets, depth: number): Prefix {
  let count = 0;
  let mass = 0;
  let last: Token | undefined;
  for (let id = 0; id < logits.length; id++) {
    const scaled = (largest - logits[id]) * inverseTemperature;
    if (!(scaled <= depth)) continue;
    count++;
    mass += expOfMinus(scaled);
    if (last === undefined || logits[id] <= last.logit) last = { id, logit: logits[id] };
  }
  if (last === undefined) throw badLogits(logits);
  return { count, mass, last };
}
