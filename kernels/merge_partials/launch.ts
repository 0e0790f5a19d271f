/**
 * Merges partial attention results, on the WASM runtime or with the TypeScript reference.
 *
 * @module
 */
import { Arena } from "../arena.ts";
import type { WasmRuntime } from "../wasm/instance.ts";
import { mergePartialsReference } from "./reference.ts";
import { type AttentionPartial, checkMerge } from "./spec.ts";

/** How to merge. */
export interface MergeOptions {
  /**
   * First segment of every part, ascending; decides the shape of the merge tree and so the last bits of the WASM result.
   *
   * @default {0, 1, 2, ...}
   */
  readonly starts?: readonly number[];
  /** Runtime to compute on; without one the TypeScript reference does, in f64. */
  readonly wasm?: WasmRuntime;
}

/**
 * Joins partial attention results over disjoint token ranges into the result over all of them: R rows, o [R, D] and lse [R]
 * each (DistAttention: what holders of KV ranges return, merged by whoever owns the query).
 *
 * @example Attention over two halves is attention over the whole
 * ```ts
 * import { attendPartial, mergePartials } from "@infinite-llm/runtime";
 *
 * const shape = { heads: 1, kvHeads: 1, headDim: 2 };
 * const q = Float32Array.of(1, 0);
 * const k = Float32Array.of(1, 0, 0, 1, 2, 0, 0, 2);
 * const v = Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8);
 * const whole = attendPartial({ ...shape, q, k, v });
 * const merged = mergePartials([
 *   attendPartial({ ...shape, q, k: k.subarray(0, 4), v: v.subarray(0, 4) }),
 *   attendPartial({ ...shape, q, k: k.subarray(4), v: v.subarray(4) }),
 * ]);
 * console.log(merged.o, whole.o, Math.abs(merged.lse[0] - whole.lse[0]) < 1e-6);
 * ```
 *
 * @throws {RangeError} when there is no part, an axis differs between parts, or `starts` does not ascend.
 */
export function mergePartials(parts: readonly AttentionPartial[], options: MergeOptions = {}): AttentionPartial {
  const { wasm } = options;
  const { rows, width, starts } = checkMerge(parts, options.starts);
  if (wasm === undefined) return mergePartialsReference(parts);
  using arena = new Arena(wasm);
  const o = arena.bytes(4 * rows * width * parts.length);
  const lse = arena.bytes(4 * rows * parts.length);
  parts.forEach((part, index) => {
    wasm.f32(o, rows * width * parts.length).set(part.o, index * rows * width);
    wasm.f32(lse, rows * parts.length).set(part.lse, index * rows);
  });
  const order = arena.copy(Uint32Array.from(starts));
  wasm.exports.merge_run(o, rows * width, lse, rows, rows, width, parts.length, order);
  return { o: wasm.f32(o, rows * width).slice(), lse: wasm.f32(lse, rows).slice() };
}
