/**
 * Launches of `attend_prefill.cu` (Hopper) and `attend_prefill_plain.cu` (any GPU from Ampere on): causal attention of the
 * chunks of several sequences over the paged pool.
 *
 * @module
 */
import type { CudaContext, CudaFunction, CudaStream, DeviceBuffer, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../cuda/kernel_cache.ts";
import { POOL_BLOCK_TOKENS } from "../kv_copy/pool_layout.ts";
import hopperSource from "./attend_prefill.cu" with { type: "text" };
import plainSource from "./attend_prefill_plain.cu" with { type: "text" };
import { pageHeadBytes, planItems, planPrefill, type PrefillChunk, type PrefillShape } from "./prefill_plan.ts";

/** Which of the two kernels: `hopper` needs sm_90 and a width of at most 128. */
export type PrefillVariant = "hopper" | "plain";

/** A kernel for one shape and how it is launched. */
export interface PrefillKernel {
  /** Name for the kernel cache. */
  readonly name: string;
  /** CUDA C++. */
  readonly source: string;
  /** Definitions. */
  readonly defines: Readonly<Record<string, number>>;
  /** Threads of a block. */
  readonly threads: number;
  /** Dynamic shared memory of a block. */
  readonly sharedBytes: number;
  /** Rows of a tile. */
  readonly tileRows: number;
  /** Blocks that work on a tile together. */
  readonly cluster: number;
}

/** What one launch reads and writes, in device memory. */
export interface PrefillWork {
  /** Queries, bf16 [token, heads, headDim], rotated, not scaled. */
  readonly q: DevicePtr;
  /** The layer of block 0 of the pool. */
  readonly layer: DevicePtr;
  /** Bytes from a block of the pool to the next. */
  readonly blockBytes: number;
  /** Block table, i32; chunks say where their sequences begin. */
  readonly table: DevicePtr;
  /** What {@linkcode AttendPrefill.plan} returned, on the device. */
  readonly plan: DevicePtr;
  /** Items of that plan; see {@linkcode AttendPrefill.items}. */
  readonly items: number;
  /** Finished rows, bf16 [row, heads, headDim]. */
  readonly out: DevicePtr;
  /** Partials, f32 [row, heads, headDim] and [row, heads]; needed when a chunk asks for them. */
  readonly partial?: { readonly o: DevicePtr; readonly lse: DevicePtr };
  /** Whether the launch may begin before its predecessor has ended; it waits inside. @default {false} */
  readonly programmatic?: boolean;
}

/** Rows of one block of the Hopper kernel. */
const HOPPER_ROWS = 128;
/** Barriers, item numbers and what aligning to 1024 bytes may cost. */
const HOPPER_EXTRA_BYTES = 2048;

/**
 * The kernel of a variant for a shape.
 *
 * @throws {RangeError} when the shape is not one that the variant can do.
 */
export function prefillKernel(variant: PrefillVariant, shape: PrefillShape): PrefillKernel {
  const { heads, kvHeads, headDim } = shape;
  const widest = variant === "hopper" ? 128 : 256;
  if (heads % kvHeads !== 0 || headDim % 8 !== 0 || headDim < 8 || headDim > widest) {
    throw new RangeError(
      `Cannot compile prefill attention (${variant}): wanted heads a multiple of kvHeads and headDim a multiple of 8 up to ` +
        `${widest}, got ${heads} heads, ${kvHeads} KV heads, headDim ${headDim}`,
    );
  }
  const defines = { HEADS: heads, KV_HEADS: kvHeads, HEAD_DIM: headDim };
  const headBytes = pageHeadBytes(headDim);
  switch (variant) {
    case "hopper": {
      const queryBytes = 2 * HOPPER_ROWS * headBytes / 2 / POOL_BLOCK_TOKENS;
      const slots = headBytes <= 16384 ? 8 : 5;
      // Two blocks share keys and values where a tile of both has no more to mask than a tile of one.
      const cluster = heads > kvHeads ? 2 : 1;
      return {
        name: "attend_prefill",
        source: hopperSource,
        defines: { ...defines, SLOTS: slots, CLUSTER: cluster },
        threads: 384,
        sharedBytes: queryBytes + slots * headBytes + HOPPER_EXTRA_BYTES,
        tileRows: HOPPER_ROWS * cluster,
        cluster,
      };
    }
    case "plain": {
      const stages = headBytes <= 32768 ? 2 : 1;
      return {
        name: "attend_prefill_plain",
        source: plainSource,
        defines,
        threads: 128,
        sharedBytes: headBytes / 2 + stages * headBytes,
        tileRows: 64,
        cluster: 1,
      };
    }
    default:
      return variant satisfies never;
  }
}

/** Blocks of the plain kernel on a multiprocessor, at most; the rest of the items follow in turn. */
const PLAIN_BLOCKS = 4;

/** Prefill attention for one shape on one context. Launches of one object must follow each other: they share a counter. */
export class AttendPrefill implements Disposable {
  /** Which kernel runs. */
  readonly variant: PrefillVariant;
  readonly #shape: PrefillShape;
  readonly #kernel: PrefillKernel;
  readonly #function: CudaFunction;
  readonly #counter: DeviceBuffer;
  readonly #workers: number;
  readonly #l2Bytes: number;

  /**
   * Compiles or finds the kernel.
   *
   * @param options.variant Default: the fastest that the GPU and the shape allow.
   * @throws {RangeError} when no kernel can do the shape.
   * @throws {CudaError} when the driver refuses the module or memory.
   */
  constructor(
    context: CudaContext,
    options: { readonly kernels: KernelCache; readonly shape: PrefillShape; readonly variant?: PrefillVariant },
  ) {
    const { kernels, shape } = options;
    const { major, multiprocessors, l2Bytes } = context.properties;
    this.variant = options.variant ?? (major === 9 && shape.headDim <= 128 ? "hopper" : "plain");
    this.#shape = shape;
    this.#kernel = prefillKernel(this.variant, shape);
    this.#workers = this.variant === "plain"
      ? multiprocessors * PLAIN_BLOCKS
      : Math.floor(multiprocessors / this.#kernel.cluster);
    this.#l2Bytes = l2Bytes;
    const { name, source, defines, sharedBytes } = this.#kernel;
    this.#function = kernels.module({ name, source, defines }).function("attend_prefill");
    this.#function.setSharedBytes(sharedBytes);
    this.#counter = context.alloc(256);
    using stream = context.stream();
    stream.fill(this.#counter.address, 0, this.#counter.bytes);
    stream.synchronize();
  }

  /**
   * The plan of a launch, to be copied to the device.
   *
   * @throws {RangeError} when a chunk's numbers are wrong.
   */
  plan(chunks: readonly PrefillChunk[]): Int32Array<ArrayBuffer> {
    const { tileRows } = this.#kernel;
    return planPrefill(chunks, { shape: this.#shape, tileRows, l2Bytes: this.#l2Bytes, workers: this.#workers });
  }

  /** Items of a plan. */
  items(plan: Int32Array): number {
    return planItems(plan, this.#shape);
  }

  /** Attends; see {@linkcode PrefillWork}. */
  launch(stream: CudaStream, work: PrefillWork): void {
    const { items, partial } = work;
    if (items === 0) return;
    const { threads, sharedBytes, cluster } = this.#kernel;
    stream.launch(this.#function, {
      grid: [Math.min(items, this.#workers) * cluster],
      block: [threads],
      sharedBytes,
      programmatic: work.programmatic ?? false,
      args: [
        { ptr: work.q },
        { ptr: work.layer },
        { ptr: work.table },
        { ptr: work.plan },
        { ptr: work.out },
        { ptr: partial?.o ?? work.out },
        { ptr: partial?.lse ?? work.out },
        { ptr: this.#counter.address },
        { u64: BigInt(work.blockBytes) },
        { f32: Math.LOG2E / Math.sqrt(this.#shape.headDim) },
      ],
    });
  }

  /** Frees the counter; the module belongs to the cache. */
  [Symbol.dispose](): void {
    this.#counter[Symbol.dispose]();
  }
}
