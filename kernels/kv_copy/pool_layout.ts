/**
 * Where keys and values lie in the paged pool of a GPU.
 *
 * A block is 64 tokens of all layers: [layer][kv head][K then V][subtile of 64 dimensions][64 tokens][64 dimensions] bf16, the
 * dimensions of a head padded with zeros to a multiple of 64. In row t of a subtile the 16-byte chunk c lies at chunk
 * c ^ (t % 8), the 128-byte swizzle of the tensor cores, so that one bulk copy fetches the keys or values of a head.
 *
 * @module
 */

/** Tokens of a block. */
export const POOL_BLOCK_TOKENS = 64;
/** Dimensions of a subtile. */
const SUBTILE_DIMS = 64;
/** Bytes of a subtile. */
const SUBTILE_BYTES = 8192;

/** Sizes that the layout follows from. */
export interface PoolShape {
  /** Layers. */
  readonly layers: number;
  /** Key and value heads. */
  readonly kvHeads: number;
  /** Width of a head. */
  readonly headDim: number;
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
    for (const [name, size] of Object.entries(shape)) {
      if (!Number.isInteger(size) || size < 1) {
        throw new RangeError(`Cannot lay out a KV pool: ${name} must be a positive integer, got ${size}`);
      }
    }
    this.shape = shape;
    this.paddedDim = Math.ceil(shape.headDim / SUBTILE_DIMS) * SUBTILE_DIMS;
    this.partBytes = this.paddedDim / SUBTILE_DIMS * SUBTILE_BYTES;
    this.layerBytes = 2 * shape.kvHeads * this.partBytes;
    this.blockBytes = shape.layers * this.layerBytes;
  }

  /** Byte of a value within its block. */
  offset({ layer, kvHead, value, slot, dim }: PoolPlace): number {
    const chunk = (Math.floor(dim / 8) % 8) ^ (slot % 8);
    return layer * this.layerBytes + (2 * kvHead + (value ? 1 : 0)) * this.partBytes +
      Math.floor(dim / SUBTILE_DIMS) * SUBTILE_BYTES + slot * 128 + chunk * 16 + dim % 8 * 2;
  }
}
