/**
 * The slow, obvious answer.
 *
 * @module
 */
import { checkEmbed, type EmbedInput } from "./spec.ts";

/** x [T, N]: see the spec. @throws {RangeError} when an axis does not match. */
export function embedReference(input: EmbedInput): Float32Array {
  const { vocab } = checkEmbed(input);
  const { ids, table, width } = input;
  const x = new Float32Array(ids.length * width).fill(NaN);
  ids.forEach((id, t) => {
    if (id >= 0 && id < vocab) x.set(table.subarray(id * width, (id + 1) * width), t * width);
  });
  return x;
}
