/**
 * Launches of `weight_bf16.cu`: weights as the products take them.
 *
 * @module
 */
import type { CudaFunction, CudaStream, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../cuda/kernel_cache.ts";
import type { DType } from "../dtype.ts";
import { type CudaPackedType, RECORD_BYTES } from "../linear/cuda_layout.ts";
import source from "./weight_bf16.cu" with { type: "text" };

/** Deviation of random integers of a type. */
const INTEGER_DEVIATION: Readonly<Record<CudaPackedType, number>> = { Q8_0: 73.9, Q4_0: 4.61, Q4_1: 4.61 };

/** Threads of a block. */
const THREADS = 256;

/** Types that are converted; BF16 is copied as it is. */
export type ConvertedType = Exclude<DType, "BF16">;

/** The compiled kernels. */
export class WeightKernels {
  readonly #convert: Readonly<Record<ConvertedType, CudaFunction>>;
  readonly #randomBf16: CudaFunction;
  readonly #randomE4m3: CudaFunction;
  readonly #randomF32: CudaFunction;
  readonly #randomRecords: CudaFunction;

  /** Compiles or finds them. */
  constructor(kernels: KernelCache) {
    const module = kernels.module({ name: "weight_bf16", source });
    this.#convert = {
      F32: module.function("from_f32"),
      F16: module.function("from_f16"),
      Q8_0: module.function("from_q8_0"),
      Q4_0: module.function("from_q4_0"),
      Q4_1: module.function("from_q4_1"),
      Q4_K: module.function("from_q4_k"),
      Q5_K: module.function("from_q5_k"),
      Q6_K: module.function("from_q6_k"),
    };
    this.#randomBf16 = module.function("random_bf16");
    this.#randomE4m3 = module.function("random_e4m3");
    this.#randomF32 = module.function("random_f32");
    this.#randomRecords = module.function("random_records");
  }

  /** Rounds `count` values, whole stored blocks of `type` at `from`, to bf16 at `to`. */
  convert(
    stream: CudaStream,
    work: {
      readonly type: ConvertedType;
      readonly from: DevicePtr;
      readonly to: DevicePtr;
      readonly count: number;
    },
  ): void {
    stream.launch(this.#convert[work.type], {
      grid: [Math.ceil(work.count / THREADS)],
      block: [THREADS],
      args: [{ ptr: work.from }, { ptr: work.to }, { u64: BigInt(work.count) }],
    });
  }

  /** Fills `count` values of a type with random numbers of deviation `scale`. */
  randomMatrix(
    stream: CudaStream,
    work: {
      readonly to: DevicePtr;
      readonly count: number;
      readonly seed: number;
      readonly scale: number;
      /** @default {"bf16"} */
      readonly type?: "bf16" | "fp8";
    },
  ): void {
    stream.launch(work.type === "fp8" ? this.#randomE4m3 : this.#randomBf16, {
      grid: [Math.ceil(work.count / THREADS)],
      block: [THREADS],
      args: [{ ptr: work.to }, { u64: BigInt(work.count) }, { u64: BigInt(work.seed) }, { f32: work.scale }],
    });
  }

  /** Fills records of packed weights with random numbers of deviation `scale`. */
  randomRecords(
    stream: CudaStream,
    { dtype, to, records, seed, scale }: {
      readonly dtype: CudaPackedType;
      readonly to: DevicePtr;
      readonly records: number;
      readonly seed: number;
      readonly scale: number;
    },
  ): void {
    const words = RECORD_BYTES[dtype] / 4;
    const count = words * records;
    stream.launch(this.#randomRecords, {
      grid: [Math.ceil(count / THREADS)],
      block: [THREADS],
      args: [
        { ptr: to },
        { u64: BigInt(count) },
        { u64: BigInt(seed) },
        { u32: words },
        { u32: dtype === "Q8_0" ? 256 : 128 },
        { f32: scale / INTEGER_DEVIATION[dtype] },
      ],
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
