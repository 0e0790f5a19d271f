/**
 * The random source of a sequence: Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as
 * 1, 2, 3", 2011), a pure function of seed and index. A sequence that starts over continues with the same numbers.
 *
 * @module
 */

const PARITY = 0x1bd11bda;
const ROTATIONS = [13, 15, 26, 6, 17, 29, 16, 24] as const;

/** Threefry-2x32-20 of a two-word counter under a two-word key; words are unsigned 32-bit integers. */
export function threefry(
  counter: readonly [number, number],
  key: readonly [number, number],
): readonly [number, number] {
  const keys = [key[0], key[1], PARITY ^ key[0] ^ key[1]];
  let a = (counter[0] + keys[0]) | 0;
  let b = (counter[1] + keys[1]) | 0;
  for (let round = 0; round < 20; round++) {
    a = (a + b) | 0;
    const turn = ROTATIONS[round & 7];
    b = ((b << turn) | (b >>> (32 - turn))) ^ a;
    if ((round & 3) === 3) {
      const injection = (round >> 2) + 1;
      a = (a + keys[injection % 3]) | 0;
      b = (b + keys[(injection + 1) % 3] + injection) | 0;
    }
  }
  return [a >>> 0, b >>> 0];
}

/**
 * Number `index` of the stream of `seed`, uniform in [0, 1) with 53 random bits. Both are integers of up to 53 bits;
 * a negative seed counts as its two's complement.
 */
export function uniform(seed: number, index: number): number {
  const [high, low] = threefry(words(index), words(seed));
  return ((high >>> 5) * 0x4000000 + (low >>> 6)) / 0x20000000000000;
}

function words(integer: number): readonly [number, number] {
  return [integer >>> 0, Math.floor(integer / 0x100000000) >>> 0];
}
