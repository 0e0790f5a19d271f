/**
 * Random inputs for the tests and benches of the kernels that need no weights.
 *
 * @module
 */

/** `count` values, uniform in [-scale, scale), from a 32-bit xorshift. */
export function randomValues(count: number, seed: number, scale = 1): Float32Array<ArrayBuffer> {
  let state = Math.imul(seed + 1, 0x9e3779b9) | 1;
  return Float32Array.from({ length: count }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return ((state >>> 0) / 2 ** 31 - 1) * scale;
  });
}

/** The whole numbers below `count` in a random order. */
export function shuffled(count: number, seed: number): number[] {
  const keys = randomValues(count, seed);
  return Array.from({ length: count }, (_, index) => index).sort((a, b) => keys[a] - keys[b]);
}
