/**
 * Where keys and values lie in the paged pool of a GPU.
 *
 * A block is 64 tokens of all layers: [layer][kv head][K then V][subtile of 64 dimensions][64 tokens][64 dimensions], the
 * dimensions of a head padded with zeros to a multiple of 64. Elements are bf16 or, in half the bytes, e4m3 (e4m3.ts). In
 * row t of a subtile of bf16 the 16-byte chunk c lies at chunk c ^ (t % 8), of e4m3 at c ^ (floor(t / 2) % 4): the 128-byte and
 * the 64-byte swizzle of the tensor cores. One bulk copy fetches the keys or values of a head.
 *
 * @module
 */
import { KV_ELEMENT_BYTES, type KvType } from "../dtype.ts";

/** Tokens of a block. */
export const POOL_BLOCK_TOKENS = 64;
/** Dimensions of a subtile. */
const SUBTILE_DIMS = 64;

/** Element type of a pool of a GPU. */
export type PoolKvType = Extract<KvType, "bf16" | "fp8">;

/** Sizes that the layout follows from. */
export interface PoolShape {
  /** Layers. */
  readonly layers: number;
  /** Key and value heads. */
  readonly kvHeads: number;
  /** Width of a head. */
  readonly headDim: number;
  /** Element type. @default {"bf16"} */
  readonly kvType?: PoolKvType;
}

/** Place of one value in a block. */
export interface PoolPlace {
  /** Layer. */
  readonly layer: number;
  /** Key and value head. */
  readonly kvHead: number;
  /** Whether it belongs to a value. */
  readonly value: boolean;
  /** Token within the block. */
  readonly slot: number;
  /** Dimension, below the padded width. */
  readonly dim: number;
}

/** Layout of a pool; all sizes in bytes. */
export class PoolLayout {
  /** What it follows from. */
  readonly shape: PoolShape;
  /** Bytes of an element. */
  readonly elementBytes: number;
  /** Stored dimensions of a head. */
  readonly paddedDim: number;
  /** Keys, or values, of one block, layer and head. */
  readonly partBytes: number;
  /** One layer of a block. */
  readonly layerBytes: number;
  /** One block. */
  readonly blockBytes: number;

  /** Computes the sizes. @throws {RangeError} when one is not a positive integer. */
  constructor(shape: PoolShape) {
    const { layers, kvHeads, headDim, kvType = "bf16" } = shape;
    for (const [name, size] of Object.entries({ layers, kvHeads, headDim })) {
      if (!Number.isInteger(size) || size < 1) {
        throw new RangeError(`Cannot lay out a KV pool: ${name} must be a positive integer, got ${size}`);
      }
    }
    this.shape = shape;
    this.elementBytes = KV_ELEMENT_BYTES[kvType];
    this.paddedDim = Math.ceil(headDim / SUBTILE_DIMS) * SUBTILE_DIMS;
    this.partBytes = POOL_BLOCK_TOKENS * this.paddedDim * this.elementBytes;
    this.layerBytes = 2 * kvHeads * this.partBytes;
    this.blockBytes = layers * this.layerBytes;
  }

  /** Byte of a value within its block. */
  offset({ layer, kvHead, value, slot, dim }: PoolPlace): number {
    const { elementBytes } = this;
    const rowBytes = SUBTILE_DIMS * elementBytes;
    // Rows of 64 bytes share a line of 128 in pairs.
    const turn = Math.floor(slot * rowBytes / 128) % (rowBytes / 16);
    const byte = dim % SUBTILE_DIMS * elementBytes;
    return layer * this.layerBytes + (2 * kvHead + (value ? 1 : 0)) * this.partBytes +
      Math.floor(dim / SUBTILE_DIMS) * POOL_BLOCK_TOKENS * rowBytes + slot * rowBytes +
      (Math.floor(byte / 16) ^ turn) * 16 + byte % 16;
  }
}

/** Macros that a kernel which includes `kv_pool.cuh` is compiled with for a pool of this type. */
export function kvDefines(kvType: PoolKvType = "bf16"): Readonly<Record<string, number>> {
  return kvType === "fp8" ? { KV_FP8: 1 } : {};
}
