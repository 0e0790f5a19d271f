/**
 * Launches `logits.cu`.
 *
 * @module
 */
import type { CudaFunction, CudaStream, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../cuda/kernel_cache.ts";
import source from "./logits.cu" with { type: "text" };

/** Threads of a block. */
const THREADS = 256;
/** Logits that one block reduces. */
const CHUNK = 4096;
/** Most candidates that one block leaves. */
const CHUNK_CANDIDATES = 192;
/** Bytes of what a block leaves beside them. */
const PART_BYTES = 8;
/** Largest vocabulary. */
const MAX_VOCAB = 64 * CHUNK;
/** Parts of the scratch memory begin at multiples of this. */
const ALIGNMENT = 256;

/** Arrays of one launch, on the device. */
export interface LogitsWork {
  /** Logits, [R, vocab] of the kernel's input type, aligned to 16 bytes. */
  readonly logits: DevicePtr;
  /** Number of rows, one u32. */
  readonly count: DevicePtr;
  /** {@linkcode LogitsKernel.scratchBytes} bytes, aligned to 256; zero before the first launch, for one launch at a time. */
  readonly scratch: DevicePtr;
  /** ln sum exp of each row, f32 [R]. */
  readonly lse: DevicePtr;
  /** Ids of each row's largest logits, i32 [R, 64]; -1 beyond the vocabulary. */
  readonly ids: DevicePtr;
  /** Their logits, f32 [R, 64]; -Infinity beyond the vocabulary. */
  readonly top: DevicePtr;
  /** Rows there is room for, at most the kernel's `maxRows`; fixes the grid. */
  readonly rows: number;
  /** Whether the launch may begin before its predecessor has ended. @default {false} */
  readonly programmatic?: boolean;
}

/** What a sampler needs of rows of logits. */
export class LogitsKernel {
  /** Bytes of scratch memory. */
  readonly scratchBytes: number;
  readonly #function: CudaFunction;
  readonly #chunks: number;
  readonly #sumsAt: number;
  readonly #keysAt: number;

  /**
   * Compiles or finds it. `maxRows` is the most rows of any launch.
   *
   * @throws {RangeError} when the vocabulary is empty or has more than 262,144 tokens.
   */
  constructor(
    kernels: KernelCache,
    { vocab, input, maxRows }: { readonly vocab: number; readonly input: "bf16" | "f32"; readonly maxRows: number },
  ) {
    if (!(vocab >= 1 && vocab <= MAX_VOCAB)) {
      throw new RangeError(`Cannot summarise logits: axis V must be 1 to ${MAX_VOCAB}, got ${vocab}`);
    }
    const aligned = (bytes: number) => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
    this.#chunks = Math.ceil(vocab / CHUNK);
    // One counter a row, then the sum and the candidates of each chunk; places do not depend on the launch, so that the
    // counters stay zero between launches of different sizes.
    this.#sumsAt = aligned(4 * maxRows);
    this.#keysAt = this.#sumsAt + aligned(PART_BYTES * maxRows * this.#chunks);
    this.scratchBytes = this.#keysAt + 8 * CHUNK_CANDIDATES * maxRows * this.#chunks;
    const defines = { VOCAB: vocab, IN: input === "f32" ? "float" : "bf16" };
    this.#function = kernels.module({ name: "logits", source, defines }).function("logits");
  }

  /** Summarises the first `count` rows. */
  launch(stream: CudaStream, work: LogitsWork): void {
    const { logits, count, scratch, lse, ids, top, rows, programmatic } = work;
    const at = (offset: number) => ({ ptr: (scratch + BigInt(offset)) as DevicePtr });
    stream.launch(this.#function, {
      grid: [this.#chunks, rows],
      block: [THREADS],
      args: [
        { ptr: logits },
        { ptr: count },
        at(this.#keysAt),
        at(this.#sumsAt),
        at(0),
        { ptr: lse },
        { ptr: ids },
        { ptr: top },
      ],
      programmatic,
    });
  }
}
