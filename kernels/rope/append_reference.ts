/**
 * The slow, obvious answer, in f64.
 *
 * @module
 */
import { checkRopeAppend, type RopeAppendInput } from "./append_spec.ts";
import { ropeReference } from "./reference.ts";

/** A key or value and its place; values in f32, not rounded to the pool's type. */
export interface AppendedHead {
  /** Block id as the table has it. */
  readonly block: number;
  /** Token within the block. */
  readonly slot: number;
  /** Key and value head. */
  readonly kvHead: number;
  /** Key, [D]. */
  readonly key: Float32Array;
  /** Value, [D]. */
  readonly value: Float32Array;
}

/** Rotated queries and what goes to the pool; tokens that write nothing for want of a place are left out. */
export interface RopeAppendResult {
  /** Rotated queries, [T, H, D], not rounded. */
  readonly q: Float32Array;
  /** Keys and values. */
  readonly appended: readonly AppendedHead[];
}

/** See the spec. @throws {RangeError} when an axis does not match. */
export function ropeAppendReference(input: RopeAppendInput): RopeAppendResult {
  checkRopeAppend(input);
  const { qkv, bias, heads, kvHeads, headDim, positions, sequences, tables, maxBlocks } = input;
  const width = (heads + 2 * kvHeads) * headDim;
  const x = qkv.map((value, i) => value + (bias?.[i % width] ?? 0));
  const rotated = ropeReference({ ...input, x });
  const q = new Float32Array(positions.length * heads * headDim);
  const appended = positions.flatMap((position, t): AppendedHead[] => {
    q.set(rotated.subarray(t * width, t * width + heads * headDim), t * heads * headDim);
    const entry = Math.floor(position / 64);
    if (sequences[t] < 0 || entry >= maxBlocks) return [];
    const block = tables[sequences[t] * maxBlocks + entry];
    return Array.from({ length: kvHeads }, (_, kvHead): AppendedHead => {
      const key = t * width + (heads + kvHead) * headDim;
      const value = key + kvHeads * headDim;
      return {
        block,
        slot: position % 64,
        kvHead,
        key: rotated.slice(key, key + headDim),
        value: x.slice(value, value + headDim),
      };
    });
  });
  return { q, appended };
}
