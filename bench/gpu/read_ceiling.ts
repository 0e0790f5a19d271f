/**
 * How fast a GPU's memory is read: the denominator of every share.
 *
 * @module
 */
import type { CudaContext } from "../../ffi/cuda/cuda.ts";
import source from "../../kernels/attend_partial/bulk_read.cu" with { type: "text" };
import type { KernelCache } from "../../kernels/cuda/kernel_cache.ts";

/** Bytes read; far more than the second-level cache holds. */
const READ_BYTES = 4 * 2 ** 30;
/** Bytes of a bulk copy and copies in flight, what `bulk_read.cu` has by default. */
const CHUNK_BYTES = 32768;
const STAGES = 6;
/** Measurements. */
const RUNS = 9;

/** Bytes per second of bulk copies into shared memory, the median of several reads. Needs compute capability 9.0. */
export function readCeiling(context: CudaContext, kernels: KernelCache): number {
  const kernel = kernels.module({ name: "bulk_read", source }).function("bulk_read");
  kernel.setSharedBytes(STAGES * CHUNK_BYTES);
  using stream = context.stream();
  using memory = context.alloc(READ_BYTES);
  using begin = context.event({ timing: true });
  using end = context.event({ timing: true });
  stream.fill(memory.address, 0x3c, READ_BYTES);
  const times: number[] = [];
  for (let run = 0; run < RUNS; run++) {
    stream.record(begin);
    stream.launch(kernel, {
      grid: [context.properties.multiprocessors],
      block: [32],
      sharedBytes: STAGES * CHUNK_BYTES,
      args: [{ ptr: memory.address }, { u64: BigInt(READ_BYTES / CHUNK_BYTES) }],
    });
    stream.record(end);
    stream.synchronize();
    times.push(end.msSince(begin));
  }
  times.sort((a, b) => a - b);
  return READ_BYTES / (times[RUNS >> 1] / 1000);
}
