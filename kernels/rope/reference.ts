/**
 * The slow, obvious answer, in f64.
 *
 * @module
 */
import { checkRope, type RopeInput } from "./spec.ts";

/** Rotated heads [T, H, D]: see the formula of the spec. @throws {RangeError} when an axis does not match. */
export function ropeReference(input: RopeInput): Float32Array {
  const { heads } = checkRope(input);
  const { x, positions, headDim, inverseFrequencies, pairing } = input;
  const magnitude = Math.fround(input.magnitude ?? 1);
  const pairs = inverseFrequencies.length;
  const y = x.slice();
  positions.forEach((position, t) => {
    for (let h = 0; h < heads; h++) {
      inverseFrequencies.forEach((frequency, i) => {
        const head = (t * heads + h) * headDim;
        const [a, b] = pairing === "adjacent" ? [head + 2 * i, head + 2 * i + 1] : [head + i, head + i + pairs];
        const cos = Math.cos(position * frequency) * magnitude;
        const sin = Math.sin(position * frequency) * magnitude;
        y[a] = x[a] * cos - x[b] * sin;
        y[b] = x[b] * cos + x[a] * sin;
      });
    }
  });
  return y;
}
