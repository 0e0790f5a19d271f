/**
 * Launches of `weight_bf16.cu`: weights as the products take them.
 *
 * @module
 */
import type { CudaFunction, CudaStream, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../cuda/kernel_cache.ts";
import source from "./weight_bf16.cu" with { type: "text" };

/** Threads of a block. */
const THREADS = 256;

/** The compiled kernels. */
export class WeightKernels {
  readonly #f32: CudaFunction;
  readonly #f16: CudaFunction;
  readonly #randomBf16: CudaFunction;
  readonly #randomF32: CudaFunction;

  /** Compiles or finds them. */
  constructor(kernels: KernelCache) {
    const module = kernels.module({ name: "weight_bf16", source });
    this.#f32 = module.function("from_f32");
    this.#f16 = module.function("from_f16");
    this.#randomBf16 = module.function("random_bf16");
    this.#randomF32 = module.function("random_f32");
  }

  /** Rounds `count` values of `type` at `from` to bf16 at `to`. */
  convert(
    stream: CudaStream,
    work: {
      readonly type: "f32" | "f16";
      readonly from: DevicePtr;
      readonly to: DevicePtr;
      readonly count: number;
    },
  ): void {
    stream.launch(work.type === "f32" ? this.#f32 : this.#f16, {
      grid: [Math.ceil(work.count / THREADS)],
      block: [THREADS],
      args: [{ ptr: work.from }, { ptr: work.to }, { u64: BigInt(work.count) }],
    });
  }

  /** Fills `count` bf16 values with random numbers of deviation `scale`. */
  randomMatrix(
    stream: CudaStream,
    work: { readonly to: DevicePtr; readonly count: number; readonly seed: number; readonly scale: number },
  ): void {
    stream.launch(this.#randomBf16, {
      grid: [Math.ceil(work.count / THREADS)],
      block: [THREADS],
      args: [{ ptr: work.to }, { u64: BigInt(work.count) }, { u64: BigInt(work.seed) }, { f32: work.scale }],
    });
  }

  /** Fills `count` f32 values with random numbers around 1. */
  randomVector(
    stream: CudaStream,
    work: { readonly to: DevicePtr; readonly count: number; readonly seed: number },
  ): void {
    stream.launch(this.#randomF32, {
      grid: [Math.ceil(work.count / THREADS)],
      block: [THREADS],
      args: [
        { ptr: work.to },
        { u64: BigInt(work.count) },
        { u64: BigInt(work.seed) },
        { f32: 1 },
        { f32: 0.1 },
      ],
    });
  }
}
