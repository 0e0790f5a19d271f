/**
 * How much of a GPU's memory the KV pool gets.
 *
 * @module
 */

/** Share of a GPU's memory that a process uses when nothing is asked for. */
export const DEFAULT_MEMORY_UTILIZATION = 0.9;

/** Share of a GPU's memory up to which processes together fill it, unless one of them is given more. */
const MOST_TOGETHER = 0.9;

/** Memory kept for kernels, scratch memory of products, tables and partials of spread steps, bytes. */
const RESERVE_BYTES = 384 << 20;

/** What is known when the pool is sized. */
export interface CudaMemory {
  /** Memory of the GPU, bytes. */
  readonly totalBytes: number;
  /** Not in use by anybody, weights already loaded, bytes. */
  readonly freeBytes: number;
  /** Weights of this process, bytes. @default {0} */
  readonly weightBytes?: number;
  /** Buffers of steps that are still to be made, bytes. */
  readonly stepBytes: number;
  /** Bytes of a block. */
  readonly blockBytes: number;
  /** Share of the GPU's memory that this process may use. @default {0.9} */
  readonly utilization?: number;
  /** Blocks beyond which more are of no use. @default {no limit} */
  readonly mostBlocks?: number;
}

/**
 * Blocks that fill this process's share of the GPU, and no more than others have left free of the GPU.
 *
 * @throws {RangeError} when the share is not above 0 and at most 1, or leaves no room for a block, naming the sizes.
 */
export function cudaBlocks(memory: CudaMemory): number {
  const { totalBytes, freeBytes, weightBytes = 0, stepBytes, blockBytes, mostBlocks = Infinity } = memory;
  const { utilization = DEFAULT_MEMORY_UTILIZATION } = memory;
  if (!(utilization > 0 && utilization <= 1)) {
    throw new RangeError(
      `Cannot size the KV pool: the share of GPU memory must be above 0 and at most 1, got ${utilization}`,
    );
  }
  const own = totalBytes * utilization - weightBytes;
  const left = freeBytes - totalBytes * (1 - Math.max(utilization, MOST_TOGETHER));
  const room = Math.min(own, left) - stepBytes - RESERVE_BYTES;
  const blocks = Math.min(mostBlocks, Math.floor(room / blockBytes));
  if (!(blocks >= 1)) {
    const mib = (bytes: number) => `${Math.round(bytes / 2 ** 20)} MiB`;
    throw new RangeError(
      `Cannot size the KV pool: ${mib(freeBytes)} of ${
        mib(totalBytes)
      } are free, and ${utilization} of the whole may be used, of which weights take ${mib(weightBytes)} and steps ` +
        `${mib(stepBytes + RESERVE_BYTES)}; one block takes ${mib(blockBytes)}`,
    );
  }
  return blocks;
}
