/**
 * Launches `sample.cu`.
 *
 * @module
 */
import type { CudaFunction, CudaStream, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../cuda/kernel_cache.ts";
import source from "./sample.cu" with { type: "text" };
import type { SampleRingSize } from "./sample_ring.ts";

/** Rows of a block of `sample`, one warp each. */
const BLOCK_ROWS = 8;
/** Threads of a block of `sample_rest`. */
const REST_THREADS = 384;
/** Blocks of `sample_rest`: 16 clusters of 8, or as many single blocks. */
const REST_BLOCKS = 128;
/** Most rows of a launch. */
export const MAX_SAMPLE_ROWS = 1024;

/** Bytes of the kernel's own state, zero before the first launch. */
export const SAMPLE_STATE_BYTES: number = 16 + 4 * MAX_SAMPLE_ROWS;

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
  /** Rows that every array has room for, at most {@linkcode MAX_SAMPLE_ROWS} and the ring's; fixes the grid. Rows from `count` on are read, not used. */
  readonly maxRows: number;
  /** Whether the launch may begin before its predecessor has ended. @default {false} */
  readonly programmatic?: boolean;
}

/** Chooses tokens on the GPU. */
export class SampleKernel {
  readonly #sample: CudaFunction;
  readonly #rest: CudaFunction;

  /** Compiles or finds it. */
  constructor(kernels: KernelCache, { vocab, input }: { readonly vocab: number; readonly input: "bf16" | "f32" }) {
    const defines = { VOCAB: vocab, IN: input === "f32" ? "float" : "bf16" };
    const module = kernels.module({ name: "sample", source, defines });
    this.#sample = module.function("sample");
    this.#rest = module.function("sample_rest");
  }

  /** Samples the first `count` rows: one launch, or two when there are logits. */
  launch(stream: CudaStream, work: SampleWork): void {
    const { rows, logits, lse, ids, top, count, state, maxRows, programmatic } = work;
    const output = { bytes: outputBytes(work) };
    stream.launch(this.#sample, {
      grid: [Math.ceil(maxRows / BLOCK_ROWS)],
      block: [BLOCK_ROWS * 32],
      args: [
        ...[rows, lse, ids, top, count, state].map((ptr) => ({ ptr })),
        output,
        { u32: maxRows },
        { u32: logits === undefined ? 0 : 1 },
      ],
      programmatic,
    });
    if (logits === undefined) return;
    stream.launch(this.#rest, {
      grid: [REST_BLOCKS],
      block: [REST_THREADS],
      args: [...[rows, logits, lse, top, count, state].map((ptr) => ({ ptr })), output],
      programmatic,
    });
  }
}

/** `Output` of sample.cu. */
function outputBytes({ tokens, inputTokens, ring, ringSize }: SampleWork): Uint8Array {
  const bytes = new Uint8Array(32);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, tokens, true);
  view.setBigUint64(8, ring, true);
  view.setUint32(16, inputTokens, true);
  view.setUint32(20, ringSize.slots, true);
  view.setUint32(24, ringSize.rows, true);
  return bytes;
}
