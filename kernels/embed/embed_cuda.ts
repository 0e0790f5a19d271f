/**
 * Launches `embed.cu`.
 *
 * @module
 */
import type { CudaFunction, CudaStream, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../cuda/kernel_cache.ts";
import source from "./embed.cu" with { type: "text" };

/** Threads of a block. */
const THREADS = 128;

/** Arrays of one launch, on the device. */
export interface EmbedWork {
  /** Token ids, i32 [T]. */
  readonly ids: DevicePtr;
  /** Number of tokens, one u32. */
  readonly count: DevicePtr;
  /** Embedding, bf16 [vocab, hidden], aligned to 16 bytes. */
  readonly table: DevicePtr;
  /** Where the rows go, f32 [T, hidden], aligned to 16 bytes. */
  readonly x: DevicePtr;
  /** Tokens that every array has room for; fixes the grid. Rows from `count` on are read, not used. */
  readonly tokens: number;
  /** Whether the launch may begin before its predecessor has ended. @default {false} */
  readonly programmatic?: boolean;
}

/** Rows of the token embedding of one model. */
export class EmbedKernel {
  readonly #function: CudaFunction;
  readonly #slices: number;

  /** Compiles or finds it. */
  constructor(kernels: KernelCache, { hidden, vocab }: { readonly hidden: number; readonly vocab: number }) {
    this.#function = kernels.module({ name: "embed", source, defines: { HIDDEN: hidden, VOCAB: vocab } })
      .function("embed");
    this.#slices = Math.ceil(hidden / (hidden % 8 === 0 ? 8 : 1) / THREADS);
  }

  /** Fills the rows of the first `count` tokens; others stay as they are. */
  launch(stream: CudaStream, { ids, count, table, x, tokens, programmatic }: EmbedWork): void {
    stream.launch(this.#function, {
      grid: [this.#slices, tokens],
      block: [THREADS],
      args: [{ ptr: ids }, { ptr: count }, { ptr: table }, { ptr: x }],
      programmatic,
    });
  }
}
