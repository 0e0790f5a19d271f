/**
 * The memory of a CUDA KV pool: blocks of 64 tokens, the layers of a block as `PoolLayout` has them. A layer's parts of all
 * blocks lie side by side, so that attention, which reads one layer, stays within few pages of the GPU's memory.
 *
 * @module
 */
import type { CudaContext, CudaStream, DeviceBuffer, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { PoolLayer } from "../../kernels/attend_partial/attend_plain_cuda.ts";
import { type PoolKvType, PoolLayout, type PoolShape } from "../../kernels/kv_copy/pool_layout.ts";
import { CUDA_BLOCK_TOKENS } from "./cuda_tables.ts";
import type { KvLayout } from "./device.ts";
import { checkPool } from "./kv_layout.ts";

/** The pool begins at a multiple of this. */
const ALIGNMENT = 1024n;

/**
 * The element type of a CUDA pool.
 *
 * @throws {RangeError} when the layout has another one.
 */
export function cudaKvType({ kvType }: Pick<KvLayout, "kvType">): PoolKvType {
  if (kvType === "bf16" || kvType === "fp8") return kvType;
  throw new RangeError(`Cannot make a KV pool: a CUDA device stores bf16 or fp8, got ${kvType}`);
}

/**
 * Sizes and element type that kernels over a pool are compiled for.
 *
 * @throws {RangeError} when the layout is not one of a CUDA pool.
 */
export function cudaPoolShape(
  layout: Pick<KvLayout, "layers" | "kvHeads" | "headDim" | "kvType">,
): PoolShape & { readonly kvType: PoolKvType } {
  const { layers, kvHeads, headDim } = layout;
  return { layers, kvHeads, headDim, kvType: cudaKvType(layout) };
}

/** Bytes of one block in the memory of the GPU. @throws {RangeError} when the layout is not one of a CUDA pool. */
export function cudaBlockBytes(layout: Pick<KvLayout, "layers" | "kvHeads" | "headDim" | "kvType">): number {
  return new PoolLayout(cudaPoolShape(layout)).blockBytes;
}

/**
 * Checks that a layout is one that CUDA pools have.
 *
 * @throws {RangeError} naming what is not.
 */
export function checkCudaPool(pool: { readonly layout: KvLayout; readonly blocks: number }): void {
  checkPool(pool);
  const { blockTokens } = pool.layout;
  if (blockTokens !== CUDA_BLOCK_TOKENS) {
    throw new RangeError(
      `Cannot make a KV pool: a CUDA device has blocks of ${CUDA_BLOCK_TOKENS} tokens, got ${blockTokens}`,
    );
  }
  cudaKvType(pool.layout);
}

/** The blocks; zero at first, so that padding is. */
export class CudaPool implements Disposable {
  /** Blocks. */
  readonly blocks: number;
  /** Element type. */
  readonly kvType: PoolKvType;
  /** Bytes of a block over all layers. */
  readonly blockBytes: number;
  /** Bytes from a layer of a block to the next. */
  readonly layerStride: number;
  readonly #layerBytes: number;
  readonly #buffer: DeviceBuffer;
  readonly #base: DevicePtr;

  /**
   * Takes the memory.
   *
   * @throws {RangeError} when the layout is not one of a CUDA pool.
   * @throws {CudaError} when there is not enough memory.
   */
  constructor(
    context: CudaContext,
    options: { readonly layout: KvLayout; readonly blocks: number; readonly stream: CudaStream },
  ) {
    checkCudaPool(options);
    const { layout, blocks, stream } = options;
    this.blocks = blocks;
    this.kvType = cudaKvType(layout);
    this.blockBytes = cudaBlockBytes(layout);
    this.#layerBytes = this.blockBytes / layout.layers;
    this.layerStride = blocks * this.#layerBytes;
    this.#buffer = context.alloc(blocks * this.blockBytes + Number(ALIGNMENT));
    const { address } = this.#buffer;
    this.#base = this.#buffer.at(Number(-address & (ALIGNMENT - 1n)));
    stream.fill(this.#base, 0, blocks * this.blockBytes);
    stream.synchronize();
  }

  /** Address of the first layer of a block. */
  block(block: number): DevicePtr {
    return this.#base + BigInt(block * this.#layerBytes) as DevicePtr;
  }

  /** Where a layer lies. */
  layer(layer: number): PoolLayer {
    return {
      layer: this.#base + BigInt(layer * this.layerStride) as DevicePtr,
      blockBytes: this.#layerBytes,
    };
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#buffer[Symbol.dispose]();
  }
}
