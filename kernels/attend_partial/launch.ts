/**
 * Partial attention over contiguous arrays, on the WASM runtime or with the TypeScript reference.
 *
 * @module
 */
import type { HostKvType } from "../dtype.ts";
import { type AttentionPartial, SEGMENT_TOKENS } from "../merge_partials/spec.ts";
import type { WasmRuntime } from "../wasm/instance.ts";
import { WasmKvPool } from "./kv_pool.ts";
import { attendPartialReference } from "./reference.ts";
import { type AttendPartialInput, checkAttend } from "./spec.ts";

/** How to compute. */
export interface AttendPartialOptions {
  /** Type that keys and values are rounded to. @default {"f32"} */
  readonly kvType?: HostKvType;
  /** Runtime to compute on; without one the TypeScript reference does, in f64. */
  readonly wasm?: WasmRuntime;
}

/** Tokens of a block that may start at `start`. */
function blockTokensAt(start: number): number {
  let tokens = SEGMENT_TOKENS;
  while (start % tokens !== 0) tokens /= 2;
  return tokens;
}

/**
 * Attention of T query tokens over one token range of a sequence (DistAttention, equation 2): o [T, H, D], the softmax-weighted
 * mean of the range's values, and lse [T, H], the natural logarithm of the sum of exponentials of its scores. Results over
 * disjoint ranges join with {@linkcode mergePartials}. A query with nothing to attend to gets o = 0 and lse = -Infinity.
 *
 * @example One query head over three tokens
 * ```ts
 * import { attendPartial } from "@infinite-llm/runtime";
 *
 * const { o, lse } = attendPartial({
 *   q: Float32Array.of(0, 0),
 *   k: Float32Array.of(1, 0, 0, 1, 1, 1),
 *   v: Float32Array.of(1, 2, 3, 4, 5, 6),
 *   heads: 1,
 *   kvHeads: 1,
 *   headDim: 2,
 * });
 * console.log(o, lse); // the mean of the values, [3, 4], and ln 3
 * ```
 *
 * @throws {RangeError} when an axis does not match or a number is out of range; names the tensor and the axis.
 */
export function attendPartial(input: AttendPartialInput, options: AttendPartialOptions = {}): AttentionPartial {
  const { kvType = "f32", wasm } = options;
  const { queries, length, group, start } = checkAttend(input);
  if (wasm === undefined) return attendPartialReference(input, kvType);
  if (length === 0 || queries === 0) {
    return { o: new Float32Array(input.q.length), lse: new Float32Array(queries * input.heads).fill(-Infinity) };
  }
  const { kvHeads, headDim, q, k, v, firstPosition } = input;
  const blockTokens = blockTokensAt(start);
  const blocks = Math.ceil(length / blockTokens);
  using pool = new WasmKvPool(wasm, { blocks, blockTokens, layers: 1, kvHeads, headDim, kvType });
  const table = Uint32Array.from({ length: blocks }, (_, index) => index);
  pool.append({ layer: 0, table, position: 0, k, v });
  return pool.attend({ layer: 0, table, tableStart: start, to: start + length, firstPosition, group, q });
}
