/**
 * Launches `kv_copy.cu`.
 *
 * @module
 */
import type { CudaFunction, CudaStream, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../cuda/kernel_cache.ts";
import source from "./kv_copy.cu" with { type: "text" };
import { kvDefines, PoolLayout } from "./pool_layout.ts";
import { checkKvCopy, type KvCopyShape } from "./spec.ts";

/** Threads of a block. */
const THREADS = 256;

/** One block and its stored bytes. */
export interface KvCopyWork {
  /** Address of the block's first layer in the pool. */
  readonly block: DevicePtr;
  /** Bytes from a layer of the block to the next. @default {those of a layer: a block is one run of bytes} */
  readonly layerBytes?: number;
  /** Stored bytes, {@linkcode KvCopyKernels.storedBytes} of them, aligned to 16; of the device or pinned ones of the host. */
  readonly stored: DevicePtr;
}

/** Copies between a pool and the bytes that members exchange. */
export class KvCopyKernels {
  /** Bytes of a whole block of the pool as it is stored. */
  readonly storedBytes: number;
  readonly #export: CudaFunction;
  readonly #import: CudaFunction;
  readonly #grid: readonly [number, number];
  readonly #layerBytes: number;

  /** Compiles or finds them. @throws {RangeError} when a size is out of range. */
  constructor(kernels: KernelCache, shape: KvCopyShape) {
    this.storedBytes = checkKvCopy(shape);
    const { layers, kvHeads, headDim, storedTokens, kvType } = shape;
    const module = kernels.module({
      name: "kv_copy",
      source,
      defines: { LAYERS: layers, KV_HEADS: kvHeads, DIM: headDim, TOKENS: storedTokens, ...kvDefines(kvType) },
    });
    this.#export = module.function("kv_export");
    this.#import = module.function("kv_import");
    this.#grid = [2 * kvHeads, layers];
    this.#layerBytes = new PoolLayout(shape).layerBytes;
  }

  /** Writes the stored bytes of a block. */
  exportBlock(stream: CudaStream, work: KvCopyWork): void {
    this.#launch(stream, this.#export, work);
  }

  /** Fills a block from its stored bytes. */
  importBlock(stream: CudaStream, work: KvCopyWork): void {
    this.#launch(stream, this.#import, work);
  }

  #launch(
    stream: CudaStream,
    kernel: CudaFunction,
    { block, stored, layerBytes = this.#layerBytes }: KvCopyWork,
  ): void {
    const args = [{ ptr: block }, { ptr: stored }, { u64: BigInt(layerBytes) }];
    stream.launch(kernel, { grid: this.#grid, block: [THREADS], args });
  }
}
