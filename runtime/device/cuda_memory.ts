/**
 * How much of a GPU's memory the KV pool gets.
 *
 * @module
 */

/** Share of a GPU's memory that a process uses when nothing is asked for. */
export const DEFAULT_MEMORY_UTILIZATION = 0.9;

/** Memory kept for kernels, scratch memory of products, tables and partials of spread steps, bytes. */
const RESERVE_BYTES = 384 << 20;

/** What is known when the pool is sized. */
export interface CudaMemory {
  /** Memory of the GPU, bytes. */
  readonly totalBytes: number;
  /** Not in use by anybody, weights already loaded, bytes. */
  readonly freeBytes: number;
  /** Buffers of steps that are still to be made, bytes. */
  readonly stepBytes: number;
  /** Bytes of a block. */
  readonly blockBytes: number;
  /** Share of the GPU's memory that may be in use. @default {0.9} */
  readonly utilization?: number;
  /** Blocks beyond which more are of no use. @default {no limit} */
  readonly mostBlocks?: number;
}

/**
 * Blocks that fill the GPU up to the stated share.
 *
 * @throws {RangeError} when the share is not above 0 and at most 1, or leaves no room for a block, naming the sizes.
 */
export function cudaBlocks(memory: CudaMemory): number {
  const { totalBytes, freeBytes, stepBytes, blockBytes, mostBlocks = Infinity } = memory;
  const { utilization = DEFAULT_MEMORY_UTILIZATION } = memory;
  if (!(utilization > 0 && utilization <= 1)) {
    throw new RangeError(
      `Cannot size the KV pool: the share of GPU memory must be above 0 and at most 1, got ${utilization}`,
    );
  }
  const room = Math.min(freeBytes, freeBytes - totalBytes * (1 - utilization)) - stepBytes - RESERVE_BYTES;
  const blocks = Math.min(mostBlocks, Math.floor(room / blockBytes));
  if (!(blocks >= 1)) {
    const mib = (bytes: number) => `${Math.round(bytes / 2 ** 20)} MiB`;
    throw new RangeError(
      `Cannot size the KV pool: ${mib(freeBytes)} of ${
        mib(totalBytes)
      } are free, of which ${utilization} of the whole may ` +
        `be used; steps take ${mib(stepBytes + RESERVE_BYTES)}, and one block ${mib(blockBytes)}`,
    );
  }
  return blocks;
}
