/**
 * Launches `swiglu.cu`.
 *
 * @module
 */
import type { CudaFunction, CudaStream, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../cuda/kernel_cache.ts";
import source from "./swiglu.cu" with { type: "text" };

/** Threads of a block. */
const THREADS = 128;

/** Arrays of one launch, on the device. */
export interface SwigluWork {
  /** Gate and up projection of each token, [T, 2, intermediate] of the kernel's input type, aligned to 16 bytes. */
  readonly gateUp: DevicePtr;
  /** Number of tokens, one u32. */
  readonly count: DevicePtr;
  /** Output, bf16 [T, intermediate], aligned to 16 bytes. */
  readonly y: DevicePtr;
  /** Tokens that every array has room for; fixes the grid. Rows from `count` on are read, not used. */
  readonly tokens: number;
  /** Whether the launch may begin before its predecessor has ended. @default {false} */
  readonly programmatic?: boolean;
}

/** The gated activation of an MLP. */
export class SwigluKernel {
  readonly #function: CudaFunction;
  readonly #slices: number;

  /** Compiles or finds it. */
  constructor(
    kernels: KernelCache,
    { intermediate, input }: { readonly intermediate: number; readonly input: "bf16" | "f32" },
  ) {
    const defines = { WIDTH: intermediate, IN: input === "f32" ? "float" : "bf16" };
    this.#function = kernels.module({ name: "swiglu", source, defines }).function("swiglu");
    this.#slices = Math.ceil(intermediate / (intermediate % 8 === 0 ? 8 : 1) / THREADS);
  }

  /** Fills the rows of the first `count` tokens; others stay as they are. */
  launch(stream: CudaStream, { gateUp, count, y, tokens, programmatic }: SwigluWork): void {
    stream.launch(this.#function, {
      grid: [this.#slices, tokens],
      block: [THREADS],
      args: [{ ptr: gateUp }, { ptr: count }, { ptr: y }],
      programmatic,
    });
  }
}
