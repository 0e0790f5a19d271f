/**
 * Launches of `attend_prefill.cu` and `attend_prefill_tree.cu` (Hopper) and `attend_prefill_plain.cu` (any GPU from Ampere on):
 * causal attention of the chunks of several sequences over the paged pool.
 *
 * @module
 */
import type { CudaContext, CudaFunction, CudaStream, DeviceBuffer, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../cuda/kernel_cache.ts";
import { POOL_BLOCK_TOKENS } from "../kv_copy/pool_layout.ts";
import hopperSource from "./attend_prefill.cu" with { type: "text" };
import treeSource from "./attend_prefill_tree.cu" with { type: "text" };
import plainSource from "./attend_prefill_plain.cu" with { type: "text" };
import {
  checkNodes,
  pageHeadBytes,
  planItems,
  planPrefill,
  type PrefillChunk,
  type PrefillShape,
} from "./prefill_plan.ts";

/**
 * Which of the kernels: `hopper` and `tree` need sm_90, `tree` and keys of 8 bits a width of at most 128. `tree` gives every token the bits that
 * `attend_decode` gives it, and is slower.
 */
export type PrefillVariant = "hopper" | "tree" | "plain";

/** A kernel for one shape and how it is launched. */
export interface PrefillKernel {
  /** Name for the kernel cache. */
  readonly name: string;
  /** CUDA C++. */
  readonly source: string;
  /** Name of the function in it. */
  readonly entry: string;
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
  /** KV tokens of a step. */
  readonly blockTokens: number;
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
  const { heads, kvHeads, headDim, kvType = "bf16" } = shape;
  const widest = variant === "tree" || kvType === "fp8" ? 128 : 256;
  if (heads % kvHeads !== 0 || headDim % 8 !== 0 || headDim < 8 || headDim > widest) {
    throw new RangeError(
      `Cannot compile prefill attention (${variant}): wanted heads a multiple of kvHeads and headDim a multiple of 8 up to ` +
        `${widest}, got ${heads} heads, ${kvHeads} KV heads, headDim ${headDim}`,
    );
  }
  const defines = { HEADS: heads, KV_HEADS: kvHeads, HEAD_DIM: headDim };
  const headBytes = pageHeadBytes({ ...shape, kvType: "bf16" });
  switch (variant) {
    case "hopper": {
      const queryBytes = 2 * HOPPER_ROWS * headBytes / 2 / POOL_BLOCK_TOKENS;
      const narrow = headBytes <= 16384;
      // A block is two pages, or one where heads are wide.
      const wide = headDim > 128;
      const slotBytes = wide ? headBytes / 2 : headBytes;
      // Pages of 8 bits land two at a time in a ring of their own.
      const fp8 = kvType === "fp8";
      const landings = narrow ? 4 : 2;
      const slots = narrow ? 8 : fp8 ? 4 : headDim > 192 ? 3 : 5;
      // Two blocks share keys and values where a tile of both has no more to mask than a tile of one.
      const cluster = heads > kvHeads ? 2 : 1;
      return {
        name: "attend_prefill",
        source: hopperSource,
        entry: "attend_prefill",
        defines: { ...defines, SLOTS: slots, CLUSTER: cluster, ...fp8 ? { KV_FP8: 1, STAGES: landings } : {} },
        threads: 384,
        sharedBytes: queryBytes + slots * slotBytes + (fp8 ? landings * headBytes / 2 : 0) + HOPPER_EXTRA_BYTES,
        tileRows: HOPPER_ROWS * cluster,
        cluster,
        blockTokens: wide ? 64 : 128,
      };
    }
    case "tree": {
      if (kvType !== "bf16") {
        throw new RangeError(`Cannot compile prefill attention (tree): wanted keys and values of bf16, got ${kvType}`);
      }
      const queryBytes = 2 * HOPPER_ROWS * headBytes / 2 / POOL_BLOCK_TOKENS;
      const slots = headBytes <= 16384 ? 8 : 3;
      const cluster = heads > kvHeads ? 2 : 1;
      return {
        name: "attend_prefill_tree",
        source: treeSource,
        entry: "attend_prefill_tree",
        defines: { ...defines, SLOTS: slots, CLUSTER: cluster },
        threads: 384,
        // Queries have 2 bytes each, the partials that are kept 4.
        sharedBytes: 2 * queryBytes + slots * headBytes + HOPPER_EXTRA_BYTES,
        tileRows: HOPPER_ROWS * cluster,
        cluster,
        blockTokens: 128,
      };
    }
    case "plain": {
      if (kvType !== "bf16") {
        throw new RangeError(`Cannot compile prefill attention (plain): wanted keys and values of bf16, got ${kvType}`);
      }
      const stages = headBytes <= 32768 ? 2 : 1;
      return {
        name: "attend_prefill_plain",
        source: plainSource,
        entry: "attend_prefill",
        defines,
        threads: 128,
        sharedBytes: headBytes / 2 + stages * headBytes,
        tileRows: 64,
        cluster: 1,
        blockTokens: 64,
      };
    }
    default:
      return variant satisfies never;
  }
}

/** Warps of a block of the Hopper kernels that compute. */
const CONSUMER_WARPS = 8;
/** Parts of tiles, for each worker, that there is room for. */
const PARTS_PER_WORKER = 2.5;
/** KV tokens of a chunk that the tree kernel has memory for from the first; it takes more when it is asked for more. */
const TREE_TOKENS = 32_768;
/** Tokens of a block of keys and values of the tree kernel. */
const TREE_BLOCK_TOKENS = 128;
/** Bytes of what one block keeps: sums of its 128 rows and two more numbers for each. */
function shareBytes(headDim: number): number {
  const paddedDim = Math.ceil(headDim / 64) * 64;
  return (paddedDim / 8 + 1) * 16 * 256;
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
  readonly #context: CudaContext;
  /** Room for parts of tiles, of all KV heads, and how many of them are there; of the Hopper kernel. */
  readonly #slots: number;
  readonly #parts: DeviceBuffer | undefined;
  readonly #arrived: DeviceBuffer | undefined;
  /** Nodes that wait, of the tree kernel; levels of them. */
  #pending: DeviceBuffer | undefined;
  #levels = 0;
  /** Memory for fewer levels, which launches on their way may still use. */
  readonly #outgrown: DeviceBuffer[] = [];

  /**
   * Compiles or finds the kernel.
   *
   * @param options.variant Default: the fastest that the GPU and the shape allow.
   * @throws {RangeError} when no kernel can do the shape.
   * @throws {CudaError} when the driver refuses the module or memory.
   */
  constructor(
    context: CudaContext,
    options: {
      readonly kernels: KernelCache;
      readonly shape: PrefillShape;
      readonly variant?: PrefillVariant;
    },
  ) {
    const { kernels, shape } = options;
    const { major, multiprocessors, l2Bytes } = context.properties;
    // Wide heads have not been proved on a GPU.
    this.variant = options.variant ?? (major === 9 && shape.headDim <= 128 ? "hopper" : "plain");
    this.#shape = shape;
    this.#kernel = prefillKernel(this.variant, shape);
    this.#workers = this.variant === "plain"
      ? multiprocessors * PLAIN_BLOCKS
      : Math.floor(multiprocessors / this.#kernel.cluster);
    this.#l2Bytes = l2Bytes;
    const { name, source, entry, defines, sharedBytes, cluster } = this.#kernel;
    this.#function = kernels.module({ name, source, defines }).function(entry);
    this.#function.setSharedBytes(sharedBytes);
    // Cutting tiles of single blocks has not been proved on a GPU.
    const cut = this.variant === "hopper" && cluster > 1;
    this.#slots = cut ? Math.ceil(PARTS_PER_WORKER * this.#workers / shape.kvHeads) : 0;
    const cuts = this.#slots * shape.kvHeads * cluster;
    this.#counter = context.alloc(256);
    this.#context = context;
    if (this.variant === "tree") this.#reserve(TREE_TOKENS);
    if (this.#slots > 0) {
      this.#parts = context.alloc(cuts * shareBytes(shape.headDim));
      this.#arrived = context.alloc(cuts * 4 * CONSUMER_WARPS);
    }
    using stream = context.stream();
    for (const buffer of [this.#counter, this.#arrived]) {
      if (buffer !== undefined) stream.fill(buffer.address, 0, buffer.bytes);
    }
    stream.synchronize();
  }

  /**
   * The plan of a launch, to be copied to the device.
   *
   * @throws {RangeError} when a chunk's numbers are wrong.
   * @throws {CudaError} when the tree kernel needs more memory than there is.
   */
  plan(chunks: readonly PrefillChunk[]): Int32Array<ArrayBuffer> {
    const { tileRows, blockTokens } = this.#kernel;
    if (this.variant === "tree") {
      checkNodes(chunks);
      this.#reserve(Math.max(TREE_TOKENS, ...chunks.map(({ position, tokens, kvEnd = position + tokens }) => kvEnd)));
    }
    return planPrefill(chunks, {
      shape: this.#shape,
      tileRows,
      l2Bytes: this.#l2Bytes,
      workers: this.#workers,
      slots: this.#slots,
      blockTokens,
    });
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
        { f32: (this.#pending === undefined ? Math.LOG2E : 1) / Math.sqrt(this.#shape.headDim) },
        ...this.#pending === undefined ? [] : [{ ptr: this.#pending.address }, { i32: this.#levels }],
        ...this.variant === "hopper"
          ? [this.#parts ?? this.#counter, this.#arrived ?? this.#counter].map(({ address }) => ({ ptr: address }))
          : [],
      ],
    });
  }

  /** Makes room for the tree of chunks with up to so many KV tokens. */
  #reserve(tokens: number): void {
    const levels = Math.ceil(Math.log2(tokens / TREE_BLOCK_TOKENS)) - 1;
    if (levels <= this.#levels) return;
    const blocks = this.#workers * this.#kernel.cluster;
    const pending = this.#context.alloc(blocks * levels * shareBytes(this.#shape.headDim));
    if (this.#pending !== undefined) this.#outgrown.push(this.#pending);
    this.#pending = pending;
    this.#levels = levels;
  }

  /** Frees its memory; the module belongs to the cache. */
  [Symbol.dispose](): void {
    this.#counter[Symbol.dispose]();
    for (const buffer of this.#outgrown) buffer[Symbol.dispose]();
    this.#pending?.[Symbol.dispose]();
    this.#parts?.[Symbol.dispose]();
    this.#arrived?.[Symbol.dispose]();
  }
}
