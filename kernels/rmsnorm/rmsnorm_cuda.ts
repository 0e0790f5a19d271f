/**
 * Launches `rmsnorm.cu`.
 *
 * @module
 */
import type { CudaFunction, CudaStream, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../cuda/kernel_cache.ts";
import source from "./rmsnorm.cu" with { type: "text" };

/** Most threads of a block. */
const MAX_THREADS = 512;
/** No array. */
const NULL = 0n as DevicePtr;

/** Arrays of one launch, on the device. */
export interface RmsnormWork {
  /** Rows, f32 [R, hidden], aligned to 16 bytes. */
  readonly x: DevicePtr;
  /** R, rows of `x` that may be named. */
  readonly inputRows: number;
  /** Weights, f32 [hidden], aligned to 16 bytes. */
  readonly w: DevicePtr;
  /** Row of `x` of each output row, i32 [T]. @default {row t is row t} */
  readonly rows?: DevicePtr;
  /** Number of output rows, one u32. */
  readonly count: DevicePtr;
  /** Output, bf16 [T, hidden], aligned to 16 bytes. */
  readonly y: DevicePtr;
  /** Output rows there is room for, also in `rows`; fixes the grid. */
  readonly outputRows: number;
  /** Whether the launch may begin before its predecessor has ended. @default {false} */
  readonly programmatic?: boolean;
}

/** RMSNorm from the f32 residual stream to the bf16 input of a product. */
export class RmsnormKernel {
  readonly #function: CudaFunction;
  readonly #threads: number;
  readonly #eps: number;

  /** Compiles or finds it. `eps` is added to the mean square. */
  constructor(kernels: KernelCache, { hidden, eps }: { readonly hidden: number; readonly eps: number }) {
    const vectors = hidden % 8 === 0 ? hidden / 8 : hidden;
    this.#threads = Math.min(MAX_THREADS, Math.ceil(vectors / 32) * 32);
    this.#eps = eps;
    this.#function = kernels.module({ name: "rmsnorm", source, defines: { HIDDEN: hidden, THREADS: this.#threads } })
      .function("rmsnorm");
  }

  /** Normalises the first `count` rows; others stay as they are. A row named that does not exist gives NaN. */
  launch(stream: CudaStream, work: RmsnormWork): void {
    const { x, inputRows, w, rows = NULL, count, y, outputRows, programmatic } = work;
    stream.launch(this.#function, {
      grid: [outputRows],
      block: [this.#threads],
      args: [
        { ptr: x },
        { ptr: w },
        { ptr: rows },
        { ptr: count },
        { ptr: y },
        { u32: inputRows },
        { f32: this.#eps },
      ],
      programmatic,
    });
  }
}
