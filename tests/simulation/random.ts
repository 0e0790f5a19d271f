/**
 * Seeded randomness of the simulator. Every purpose draws from a stream of its own, so that one more draw in one place
 * leaves the rest of a run as it was.
 *
 * @module
 */

/** Mixes 32 bits so that every input bit reaches every output bit. */
export function mix32(value: number): number {
  let x = value | 0;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

/** Hash of a text, continued from `start`. */
export function hashText(text: string, start = 0x811c9dc5): number {
  let hash = start | 0;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/** A stream of random numbers: xoshiro128**, seeded through splitmix. */
export class Random {
  readonly #seed: number;
  readonly #state = new Uint32Array(4);

  /** Starts the stream of `seed`. */
  constructor(seed: number) {
    this.#seed = seed >>> 0;
    for (let i = 0; i < 4; i++) this.#state[i] = mix32(this.#seed + Math.imul(i + 1, 0x9e3779b9));
  }

  /** The stream of a purpose; the same for the same seed and name, whatever was drawn before. */
  stream(name: string): Random {
    return new Random(mix32(hashText(name) ^ mix32(this.#seed)));
  }

  /** Uniform in 0 to 2^32 - 1. */
  bits(): number {
    const s = this.#state;
    const result = Math.imul(rotate(Math.imul(s[1], 5), 7), 9) >>> 0;
    const shifted = s[1] << 9;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotate(s[3], 11);
    return result;
  }

  /** Uniform in [0, 1). */
  unit(): number {
    return this.bits() / 2 ** 32;
  }

  /** Uniform integer in [from, to]. */
  integer(from: number, to: number): number {
    return from + Math.floor(this.unit() * (to - from + 1));
  }

  /** Uniform in [from, to). */
  real(from: number, to: number): number {
    return from + this.unit() * (to - from);
  }

  /** Exponential with that mean. */
  exponential(mean: number): number {
    return -Math.log(1 - this.unit()) * mean;
  }

  /** True with probability `p`. */
  chance(p: number): boolean {
    return this.unit() < p;
  }

  /**
   * One of the items.
   *
   * @throws {RangeError} when there is none.
   */
  pick<T>(items: readonly T[]): T {
    if (items.length === 0) throw new RangeError("Cannot pick: wanted at least one item, got none");
    return items[Math.floor(this.unit() * items.length)];
  }

  /** The items in random order. */
  shuffle<T>(items: readonly T[]): T[] {
    const order = [...items];
    for (let i = order.length - 1; i > 0; i--) {
      const j = this.integer(0, i);
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }
}

function rotate(value: number, by: number): number {
  return (value << by) | (value >>> (32 - by));
}
