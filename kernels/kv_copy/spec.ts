/**
 * kv_copy - a block of a GPU pool as the bytes that members exchange, and back.
 *
 * Stored bytes, the same for every device. A stored block holds B consecutive tokens, bf16, little endian:
 *
 *     [layer][kv head] of   K [B / 8][D][8 tokens]   then   V [W / 8][B][8 dimensions]      W = D rounded up to 8
 *
 * Eight neighbours are a unit of 16 bytes; they lie in it in the order 0 4 1 5 2 6 3 7. Dimensions of V from D on are 0. This is
 * what a WASM pool of blocks of B tokens returns for a block of type bf16 (kernels/wasm/src/kv.rs). A GPU block of 64 tokens is
 * stored as 64 / B such blocks, one after the other: so a segment has the same bytes whatever the blocks of the pool it lies
 * in, and members whose blocks differ can hold each other's segments.
 *
 * Values of a bf16 pool move bit for bit. Every number of an fp8 pool is a bf16 and travels as that; what comes is stored as the
 * nearest e4m3 (e4m3.ts), so what an fp8 pool gave comes back bit for bit, NaN as a NaN. Padding of the pool is written as 0.
 *
 * Needs: B = 8, 16, 32 or 64; D at most 256.
 *
 * Roofline: bytes = 2 * (K and V of a block), from and to memory; over the bus where the bytes are the host's.
 *
 * Schedule: kv_copy.cu. Test: kv_copy_cuda_test.ts, reference_test.ts (against a WASM pool).
 *
 * @module
 */
import { POOL_BLOCK_TOKENS, type PoolShape } from "./pool_layout.ts";

/** Sizes of a copy. */
export interface KvCopyShape extends PoolShape {
  /** B, tokens of a stored block. */
  readonly storedTokens: number;
}

/** Bytes of one stored block of `storedTokens` tokens. */
export function storedBlockBytes({ layers, kvHeads, headDim, storedTokens }: KvCopyShape): number {
  return 2 * storedTokens * (headDim + storedWidth(headDim)) * kvHeads * layers;
}

/** W, stored dimensions of a value. */
export function storedWidth(headDim: number): number {
  return Math.ceil(headDim / 8) * 8;
}

/** Checks the sizes; returns the bytes of a whole pool block as it is stored. @throws {RangeError} */
export function checkKvCopy(shape: KvCopyShape): number {
  const { headDim, storedTokens } = shape;
  if (![8, 16, 32, 64].includes(storedTokens)) {
    throw new RangeError(`Cannot copy KV: stored blocks must have 8, 16, 32 or 64 tokens, got ${storedTokens}`);
  }
  if (!(headDim <= 256)) throw new RangeError(`Cannot copy KV: axis D must be at most 256, got ${headDim}`);
  return POOL_BLOCK_TOKENS / storedTokens * storedBlockBytes(shape);
}

/** Seeds of test data. */
export const SEEDS = { test: 101 } as const;
