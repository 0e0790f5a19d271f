/**
 * The slow, obvious copy.
 *
 * @module
 */
import { e4m3Bits, e4m3Value } from "../e4m3.ts";
import { POOL_BLOCK_TOKENS, PoolLayout } from "./pool_layout.ts";
import { checkKvCopy, type KvCopyShape, storedBlockBytes, storedWidth } from "./spec.ts";

/** Element of a unit that neighbour `at` is. */
function neighbour(at: number): number {
  return at % 4 * 2 + Math.floor(at / 4);
}

/** Calls `visit(place in the pool's block, place in the stored bytes)` in bytes for every value; without the first in padding. */
function eachValue(shape: KvCopyShape, visit: (pool: number | undefined, stored: number) => void): void {
  const { layers, kvHeads, headDim, storedTokens } = shape;
  const layout = new PoolLayout(shape);
  const width = storedWidth(headDim);
  for (let token = 0; token < POOL_BLOCK_TOKENS; token++) {
    const block = Math.floor(token / storedTokens) * storedBlockBytes(shape);
    const slot = token % storedTokens;
    for (let layer = 0; layer < layers; layer++) {
      for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
        const keys = block + 2 * (layer * kvHeads + kvHead) * storedTokens * (headDim + width);
        const values = keys + 2 * storedTokens * headDim;
        for (let dim = 0; dim < width; dim++) {
          const pool = (value: boolean) =>
            dim < headDim ? layout.offset({ layer, kvHead, value, slot: token, dim }) : undefined;
          const keyUnit = Math.floor(slot / 8) * headDim + dim;
          if (dim < headDim) visit(pool(false), keys + 2 * (keyUnit * 8 + neighbour(slot % 8)));
          const valueUnit = Math.floor(dim / 8) * storedTokens + slot;
          visit(pool(true), values + 2 * (valueUnit * 8 + neighbour(dim % 8)));
        }
      }
    }
  }
}

/** Bits of a bf16 that is the number of an e4m3. */
function wide(bits: number): number {
  const value = e4m3Value(bits);
  if (Number.isNaN(value)) return 0x7fff;
  return new Uint32Array(Float32Array.of(value).buffer)[0] >>> 16;
}

function narrow(bits: number): number {
  return e4m3Bits(new Float32Array(Uint32Array.of(bits << 16).buffer)[0]);
}

/** The stored bytes of a pool's block. @throws {RangeError} when a size is out of range. */
export function exportReference(block: Uint8Array, shape: KvCopyShape): Uint8Array<ArrayBuffer> {
  const stored = new Uint8Array(checkKvCopy(shape));
  const view = new DataView(stored.buffer);
  eachValue(shape, (from, to) => {
    if (from === undefined) return;
    if (shape.kvType === "fp8") view.setUint16(to, wide(block[from]), true);
    else stored.set(block.subarray(from, from + 2), to);
  });
  return stored;
}

/** The pool's block of stored bytes. @throws {RangeError} when a size is out of range. */
export function importReference(stored: Uint8Array, shape: KvCopyShape): Uint8Array<ArrayBuffer> {
  checkKvCopy(shape);
  const block = new Uint8Array(new PoolLayout(shape).blockBytes);
  eachValue(shape, (to, from) => {
    if (to === undefined) return;
    if (shape.kvType === "fp8") block[to] = narrow(stored[from] | stored[from + 1] << 8);
    else block.set(stored.subarray(from, from + 2), to);
  });
  return block;
}
