/**
 * The slow, obvious answer, in f64.
 *
 * @module
 */
import { checkSwiglu, type SwigluInput } from "./spec.ts";

/** y [N]: see the formula of the spec. @throws {RangeError} when the lengths differ. */
export function swigluReference(input: SwigluInput): Float32Array {
  checkSwiglu(input);
  return input.gate.map((gate, i) => gate / (1 + Math.exp(-gate)) * input.up[i]);
}
