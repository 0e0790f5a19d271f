/**
 * Launches `sample.cu`.
 *
 * @module
 */
import type { CudaFunction, CudaStream, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../cuda/kernel_cache.ts";
import source from "./sample.cu" with { type: "text" };
import type { SampleRingSize } from "./sample_ring.ts";

/** Threads of a block, which samples one row. */
const THREADS = 512;
/** No array. */
const NULL = 0n as DevicePtr;

/** Bytes of the kernel's own state, zero before the first launch. */
export const SAMPLE_STATE_BYTES = 8;

/** Arrays of one launch, on the device. */
export interface SampleWork {
  /** Rows as `writeSampleRow` writes them, aligned to 16 bytes; `accepted` of each is counted up. */
  readonly rows: DevicePtr;
  /** Logits, [R, vocab] of the kernel's input type, aligned to 16 bytes. @default {none: what needs them stays undecided} */
  readonly logits?: DevicePtr;
  /** ln sum exp of each row, f32 [R]. */
  readonly lse: DevicePtr;
  /** Candidates of each row, i32 [R, 64]. */
  readonly ids: DevicePtr;
  /** Their logits, f32 [R, 64]. */
  readonly top: DevicePtr;
  /** Number of rows, one u32. */
  readonly count: DevicePtr;
  /** Input of the next step, i32 [inputTokens]. */
  readonly tokens: DevicePtr;
  /** Size of `tokens`; slots beyond are not written. */
  readonly inputTokens: number;
  /** The kernel's state, {@linkcode SAMPLE_STATE_BYTES}: the step it counts. */
  readonly state: DevicePtr;
  /** The ring, pinned memory, aligned to 64 bytes. */
  readonly ring: DevicePtr;
  /** Sizes of the ring. */
  readonly ringSize: SampleRingSize;
  /** Rows that every array has room for, the ring too; fixes the grid. Rows from `count` on are read, not used. */
  readonly maxRows: number;
  /** Whether the launch may begin before its predecessor has ended. @default {false} */
  readonly programmatic?: boolean;
}

/** Chooses tokens on the GPU. */
export class SampleKernel {
  readonly #function: CudaFunction;

  /** Compiles or finds it. */
  constructor(kernels: KernelCache, { vocab, input }: { readonly vocab: number; readonly input: "bf16" | "f32" }) {
    const defines = { VOCAB: vocab, IN: input === "f32" ? "float" : "bf16" };
    this.#function = kernels.module({ name: "sample", source, defines }).function("sample");
  }

  /** Samples the first `count` rows. */
  launch(stream: CudaStream, work: SampleWork): void {
    const { rows, logits = NULL, lse, ids, top, count, tokens, inputTokens, state, ring, ringSize, maxRows } = work;
    stream.launch(this.#function, {
      grid: [maxRows],
      block: [THREADS],
      args: [
        ...[rows, logits, lse, ids, top, count, tokens].map((ptr) => ({ ptr })),
        { u32: inputTokens },
        { ptr: state },
        { ptr: ring },
        { u32: ringSize.slots },
        { u32: ringSize.rows },
      ],
      programmatic: work.programmatic,
    });
  }
}
