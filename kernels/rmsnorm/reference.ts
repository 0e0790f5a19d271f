/**
 * The slow, obvious answer, in f64.
 *
 * @module
 */
import { checkRmsnorm, type RmsnormInput } from "./spec.ts";

/** y [T, N]: see the formula of the spec. @throws {RangeError} when an axis does not match. */
export function rmsnormReference(input: RmsnormInput): Float32Array {
  const { rows, width } = checkRmsnorm(input);
  const { x, w, eps } = input;
  const y = new Float32Array(x.length);
  for (let t = 0; t < rows; t++) {
    let squares = 0;
    for (let n = 0; n < width; n++) squares += x[t * width + n] ** 2;
    const scale = 1 / Math.sqrt(squares / width + eps);
    for (let n = 0; n < width; n++) y[t * width + n] = x[t * width + n] * scale * w[n];
  }
  return y;
}
