/**
 * A pool of KV blocks in the memory of a GPU, with attention to it: the KV of a CUDA device and, without a model, all of a
 * holder.
 *
 * @module
 */
import { CudaContext, type CudaStream, type DevicePtr, type PinnedBuffer } from "../../ffi/cuda/cuda.ts";
import { AttendDecode, DECODE_NODE_WORDS, type DecodePlan } from "../../kernels/attend_partial/attend_decode_cuda.ts";
import { AttendPlain, TASK_WORDS } from "../../kernels/attend_partial/attend_plain_cuda.ts";
import { AttendPrefill } from "../../kernels/attend_partial/attend_prefill_cuda.ts";
import type { PrefillChunk } from "../../kernels/attend_partial/prefill_plan.ts";
import { KernelCache } from "../../kernels/cuda/kernel_cache.ts";
import { KvCopyKernels, type KvCopyWork } from "../../kernels/kv_copy/kv_copy_cuda.ts";
import type { AttentionPartial } from "../../kernels/merge_partials/spec.ts";
import { StepPlanKernels } from "../../kernels/step_plan/step_plan_cuda.ts";
import { attendNodesWith, attendRangesWith, type RangesOfOne } from "./attended_ranges.ts";
import { checkBlock, checkBlockBytes, checkNodeWork, checkRanges } from "./batch_check.ts";
import { attentionKernels, exactKernels } from "./cuda_attention.ts";
import { addressAt } from "./cuda_address.ts";
import { cudaBlocks } from "./cuda_memory.ts";
import { checkCudaPool, cudaBlockBytes, CudaPool, cudaPoolShape } from "./cuda_pool.ts";
import { tellLoss } from "./cuda_loss.ts";
import { CudaSignal } from "./cuda_signal.ts";
import { CudaStaging } from "./cuda_staging.ts";
import { CUDA_BLOCK_TOKENS } from "./cuda_tables.ts";
import type { AttendRange, KvLayout, KvStore, NodePartial, NodeWork } from "./device.ts";

/**
 * Tokens of a block as it travels, unless others are asked for: those of the pools of other devices, so that a segment has
 * the same bytes wherever it lies.
 */
export const CUDA_STORED_TOKENS = 16;

/** Nodes times query tokens of a call up to which the kernel for single tokens runs. */
const MOST_DECODE_NODES = 128;

/** Query tokens of a sequence from which on the kernel for several tokens attends to nodes. */
const CHUNK_TOKENS = 8;

/**
 * Words of an entry of a call's list, one for each slot: a task of the plain kernel, a node, or a range's length and where its
 * blocks are listed. The list of chunks is a plan of its own.
 */
const LIST_WORDS = { tasks: TASK_WORDS, nodes: DECODE_NODE_WORDS, ranges: 2, chunks: 0 } as const;

/** A call whose inputs are on their way to the GPU. */
interface StagedCall {
  /** Partials asked for. */
  readonly slots: number;
  /** Queries in bf16, and the table words of the blocks. */
  readonly q: DevicePtr;
  readonly tables: DevicePtr;
  /** The list, see {@linkcode LIST_WORDS}. */
  readonly list: DevicePtr;
  /** Results. */
  readonly o: DevicePtr;
  readonly lse: DevicePtr;
}

/** What the kernel for several tokens attends to: a node counts from its own first token, and all of it is seen. */
function chunksOf(all: readonly RangesOfOne[], width: number): PrefillChunk[] {
  let [blocks, rows, slot] = [0, 0, 0];
  return all.flatMap(({ queries, blockCount, start, ranges }) => {
    const [firstBlock, queryRow, tokens] = [blocks, rows, queries.length / width];
    blocks += blockCount;
    rows += tokens;
    return ranges.map(({ from, to }): PrefillChunk => {
      const [table, kvEnd] = [firstBlock + (from - start) / CUDA_BLOCK_TOKENS, to - from];
      const output = { kind: "partial", row: slot } as const;
      slot += tokens;
      return { queryRow, tokens, position: kvEnd, kvEnd, table, output };
    });
  });
}

/** What a store stands on. */
export interface CudaKvStoreParts {
  /** The GPU. */
  readonly context: CudaContext;
  /** Whether the store closes the context at its end. @default {false} */
  readonly ownsContext?: boolean;
  /** Its kernels. */
  readonly kernels: KernelCache;
  /** Shape of the blocks: 64 tokens, bf16 or fp8. */
  readonly layout: KvLayout;
  /** Blocks in the pool. */
  readonly blocks: number;
  /** Tokens of a block as it travels: 8, 16, 32 or 64. @default {16} */
  readonly storedTokens?: number;
  /** Whether all attention runs in the one order of a deterministic device. @default {false} */
  readonly deterministic?: boolean;
}

/** A pool of KV blocks on a GPU. Its calls have a stream of their own, ahead of a step that is under way. */
export class CudaKvStore implements KvStore {
  /** See {@linkcode KvStore.layout}. */
  readonly layout: KvLayout;
  /** See {@linkcode KvStore.blocks}. */
  readonly blocks: number;
  /** Bytes of a block as it travels, in bf16 whatever the pool has, see kv_copy. */
  readonly blockBytes: number;
  /** See {@linkcode KvStore.storedTokens}. */
  readonly storedTokens: number;
  /** The memory. */
  readonly pool: CudaPool;
  /** Its attention, for the steps of a device. */
  readonly attention: AttendPlain;
  /** Queries, tables and signals, for the steps of a device. */
  readonly plans: StepPlanKernels;
  readonly #context: CudaContext;
  readonly #stream: CudaStream;
  readonly #copies: KvCopyKernels;
  readonly #signal: CudaSignal;
  /** A call: block ids, tasks, queries. */
  readonly #work: CudaStaging;
  /** Queries in bf16, then partials; the host's side takes the partials. */
  readonly #results: CudaStaging;
  /** A block as it travels. */
  readonly #block: PinnedBuffer;
  /** Attention of single tokens; undefined where the GPU has no kernel for it, or none with the bits of all others. */
  readonly #decode: DecodePlan | undefined;
  /** Attention of many tokens to nodes; undefined likewise. */
  readonly #prefill: AttendPrefill | undefined;
  /** Whether every node is attended to by them, so that it has the bits of a step. */
  readonly #exact: boolean;
  readonly #opened: DisposableStack;

  /**
   * Makes a pool.
   *
   * @throws {RangeError} when the layout is not one of a CUDA pool.
   * @throws {CudaError} when there is not enough memory.
   */
  constructor(parts: CudaKvStoreParts) {
    const { context, ownsContext = false, kernels, layout, blocks, deterministic = false } = parts;
    using opened = new DisposableStack();
    if (ownsContext) opened.use(context);
    this.#context = context;
    this.layout = layout;
    this.blocks = blocks;
    this.#stream = opened.use(context.stream({ priority: "high" }));
    this.pool = opened.use(new CudaPool(context, { layout, blocks, stream: this.#stream }));
    const shape = cudaPoolShape(layout);
    this.attention = new AttendPlain(kernels, { ...shape, heads: layout.heads });
    this.plans = new StepPlanKernels(kernels);
    this.storedTokens = parts.storedTokens ?? CUDA_STORED_TOKENS;
    this.#copies = new KvCopyKernels(kernels, { ...shape, storedTokens: this.storedTokens });
    this.blockBytes = this.#copies.storedBytes;
    this.#signal = opened.use(new CudaSignal(context));
    this.#work = opened.use(new CudaStaging(context));
    this.#results = opened.use(new CudaStaging(context));
    this.#block = opened.use(context.pinned(this.blockBytes));
    const { major } = context.properties;
    this.#exact = deterministic && exactKernels(major, layout);
    const { prefill, decode } = attentionKernels(major, layout);
    const fast = this.#exact || !deterministic;
    if (fast && prefill) {
      const variant = this.#exact ? "tree" : undefined;
      const prefillShape = { ...shape, heads: layout.heads };
      this.#prefill = opened.use(new AttendPrefill(context, { kernels, shape: prefillShape, variant }));
    }
    if (fast && decode) {
      this.#decode = opened.use(
        new AttendDecode(context, kernels, { ...shape, heads: layout.heads }).plan(MOST_DECODE_NODES),
      );
    }
    this.#opened = opened.move();
  }

  /** See {@linkcode KvStore.attendNodes}. */
  attendNodes(layer: number, work: readonly NodeWork[]): readonly (readonly NodePartial[])[] {
    this.#enter();
    checkNodeWork(layer, work, this);
    return attendNodesWith((all) => tellLoss(() => this.#attend({ layer, whole: true }, all)), {
      work,
      blockTokens: CUDA_BLOCK_TOKENS,
    });
  }

  /** See `Device.attend`. */
  attend(layer: number, ranges: readonly AttendRange[]): AttentionPartial {
    this.#enter();
    checkRanges(layer, ranges, this);
    return attendRangesWith((all) => tellLoss(() => this.#attend({ layer, whole: false }, all)), {
      ranges,
      layout: this.layout,
    });
  }

  /** See {@linkcode KvStore.readBlock}. */
  readBlock(block: number): Uint8Array {
    this.#enter();
    checkBlock(block, this);
    tellLoss(() => {
      this.#copies.exportBlock(this.#stream, this.#copyOf(block));
      this.#stream.synchronize();
    });
    return new Uint8Array(this.#block.buffer, 0, this.blockBytes).slice();
  }

  /** See {@linkcode KvStore.writeBlock}. */
  writeBlock(block: number, bytes: Uint8Array): void {
    this.#enter();
    checkBlockBytes(block, bytes, this);
    new Uint8Array(this.#block.buffer, 0, this.blockBytes).set(bytes);
    tellLoss(() => {
      this.#copies.importBlock(this.#stream, this.#copyOf(block));
      this.#stream.synchronize();
    });
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#opened.dispose();
  }

  #copyOf(block: number): KvCopyWork {
    const { pool } = this;
    return { block: pool.block(block), layerBytes: pool.layerStride, stored: this.#block.address };
  }

  /** Several stores may share a thread. */
  #enter(): void {
    if (this.#opened.disposed) throw new ReferenceError("Cannot use the KV store: it was disposed");
    tellLoss(() => this.#context.makeCurrent());
  }

  /**
   * One partial for each range, in order. Views, valid until the next call.
   *
   * @param call `whole` says that every range is a node of the merge tree.
   */
  #attend(
    { layer, whole }: { readonly layer: number; readonly whole: boolean },
    all: readonly RangesOfOne[],
  ): AttentionPartial[] {
    const { heads, headDim } = this.layout;
    const width = heads * headDim;
    const rows = all.reduce((sum, { queries }) => sum + queries.length / width, 0);
    const slots = all.reduce((sum, { queries, ranges }) => sum + ranges.length * queries.length / width, 0);
    if (slots === 0) return [];
    const how = this.#way(all, { whole, slots });
    const listWords = LIST_WORDS[how];
    const chunks = how === "chunks" ? this.#prefill?.plan(chunksOf(all, width)) : undefined;
    const tableWords = all.reduce((sum, { blockCount }) => sum + blockCount, 0);
    const listAt = Math.ceil(tableWords / 4) * 4;
    const queriesAt = listAt + Math.ceil((chunks?.length ?? slots * listWords) / 4) * 4;
    const words = queriesAt + rows * width;
    this.#work.reserve(4 * words);
    const i32 = new Int32Array(this.#work.memory, 0, words);
    const f32 = new Float32Array(this.#work.memory, 0, words);
    const partialWords = slots * (width + heads);
    // The kernel for several tokens reads queries by 16 bytes.
    const queryBytes = Math.ceil(4 * partialWords / 256) * 256;
    this.#results.reserve(queryBytes + 4 * rows * width);
    const results = new Float32Array(this.#results.memory, 0, partialWords);
    const call = this.#signal.next();
    const partials: AttentionPartial[] = [];
    let [table, entry, row, slot] = [0, listAt, 0, 0];
    for (const { queries, blocks, blockCount, start, ranges } of all) {
      const tokens = queries.length / width;
      f32.set(queries, queriesAt + row * width);
      const origin = table - start / CUDA_BLOCK_TOKENS;
      for (let i = 0; i < blockCount; i++) i32[table++] = blocks[i];
      for (const { from, to } of ranges) {
        const lseAt = slots * width + slot * heads;
        partials.push({
          o: results.subarray(slot * width, (slot + tokens) * width),
          lse: results.subarray(lseAt, lseAt + tokens * heads),
        });
        const [page, pages] = [from / CUDA_BLOCK_TOKENS, (to - from) / CUDA_BLOCK_TOKENS];
        for (let token = 0; token < tokens; token++, slot++, entry += listWords) {
          if (how === "tasks") i32.set([row + token, origin, from, to, slot], entry);
          else if (how === "nodes") i32.set([row + token, origin + page, pages, slot], entry);
          else if (how === "ranges") [i32[listAt + slot], i32[listAt + slots + slot]] = [to - from, origin + page];
        }
      }
      row += tokens;
    }
    if (chunks !== undefined) i32.set(chunks, listAt);
    const stream = this.#stream;
    const staged: StagedCall = {
      slots,
      q: this.#results.device(queryBytes),
      tables: this.#work.device(),
      list: this.#work.device(4 * listAt),
      o: this.#results.device(),
      lse: this.#results.device(4 * slots * width),
    };
    stream.copy(this.#work.device(), this.#work.host(), 4 * words);
    this.plans.queriesIn(stream, { from: this.#work.device(4 * queriesAt), q: staged.q, count: rows * width });
    if (how === "tasks") this.#attendTasks(layer, staged);
    else if (how === "chunks") {
      this.#attendChunks(layer, staged, this.#prefill?.items(chunks ?? new Int32Array(0)) ?? 0);
    } else this.#attendDecode(layer, staged, how);
    stream.copy(this.#results.host(), this.#results.device(), 4 * partialWords);
    this.plans.signalValue(stream, { value: call, word: this.#signal.address });
    this.#signal.wait(call, stream);
    return partials;
  }

  /** Which kernel attends. */
  #way(
    all: readonly RangesOfOne[],
    { whole, slots }: { readonly whole: boolean; readonly slots: number },
  ): keyof typeof LIST_WORDS {
    const width = this.layout.heads * this.layout.headDim;
    const many = all.some(({ queries }) => queries.length >= CHUNK_TOKENS * width);
    if (whole && many && this.#prefill !== undefined) return "chunks";
    if (this.#decode === undefined || !(this.#exact || whole && slots <= MOST_DECODE_NODES)) return "tasks";
    return whole ? "nodes" : "ranges";
  }

  #attendChunks(layer: number, { q, tables, list, o, lse }: StagedCall, items: number): void {
    const at = this.pool.layer(layer);
    this.#prefill?.launch(this.#stream, { ...at, q, table: tables, plan: list, items, out: o, partial: { o, lse } });
  }

  #attendTasks(layer: number, { slots, q, tables, list, o, lse }: StagedCall): void {
    const at = this.pool.layer(layer);
    this.attention.attendTasks(this.#stream, { ...at, tasks: slots, q, tables, taskList: list, o, lse });
  }

  /** A range is of one query, in the row of its slot. */
  #attendDecode(layer: number, { slots, q, tables, list, o, lse }: StagedCall, how: "nodes" | "ranges"): void {
    const at = this.pool.layer(layer);
    const { heads, headDim } = this.layout;
    for (let first = 0; first < slots; first += MOST_DECODE_NODES) {
      const count = Math.min(slots - first, MOST_DECODE_NODES);
      if (how === "nodes") {
        this.#decode?.nodes(this.#stream, { count, nodes: addressAt(list, 4 * DECODE_NODE_WORDS * first), tables });
        this.#decode?.attend(this.#stream, { ...at, q, o, lse });
        continue;
      }
      const [lengths, rows] = [first, slots + first].map((word) => addressAt(list, 4 * word));
      this.#decode?.sequences(this.#stream, { count, lengths, rows, tables, tableWidth: 1 });
      this.#decode?.attend(this.#stream, {
        ...at,
        q: addressAt(q, 2 * first * heads * headDim),
        o: addressAt(o, 4 * first * heads * headDim),
        lse: addressAt(lse, 4 * first * heads),
      });
    }
  }
}

/** How to open a store. */
export interface OpenCudaKvStoreOptions {
  /** Shape of its blocks: 64 tokens, bf16 or fp8. */
  readonly layout: KvLayout;
  /** Blocks in the pool. @default {what memory allows, see `memoryUtilization`} */
  readonly blocks?: number;
  /** Number of the GPU. @default {0} */
  readonly ordinal?: number;
  /** Share of the GPU's memory that this process may use, when `blocks` is left out. @default {0.9} */
  readonly memoryUtilization?: number;
  /** Where compiled kernels are kept. @default {the user's cache directory} */
  readonly kernelDirectory?: string;
  /** Tokens of a block as it travels: 8, 16, 32 or 64. @default {16} */
  readonly storedTokens?: number;
  /** Whether all attention runs in the one order of a deterministic device. @default {false} */
  readonly deterministic?: boolean;
}

/**
 * Opens a pool without a model.
 *
 * @throws {Deno.errors.NotFound} when there is no driver or no library, saying where it looked.
 * @throws {RangeError} when there is no GPU of that number, the layout is not one of a CUDA pool, or memory is short.
 * @throws {CudaError} when the driver or a compiler refuses.
 */
export function openCudaKvStore(options: OpenCudaKvStoreOptions): CudaKvStore {
  const { layout, ordinal, memoryUtilization, kernelDirectory, storedTokens, deterministic } = options;
  checkCudaPool({ layout, blocks: options.blocks ?? 1 });
  using opened = new DisposableStack();
  const context = opened.use(CudaContext.open({ ordinal }));
  const blocks = options.blocks ?? cudaBlocks({
    ...context.memory(),
    stepBytes: 0,
    blockBytes: cudaBlockBytes(layout),
    utilization: memoryUtilization,
  });
  const kernels = KernelCache.open(context, { directory: kernelDirectory });
  const store = new CudaKvStore({
    context,
    ownsContext: true,
    kernels,
    layout,
    blocks,
    storedTokens,
    deterministic,
  });
  opened.move();
  return store;
}
