/**
 * Launches of `attend_plain.cu`: attention over the paged pool on any GPU, and the merge of node partials.
 *
 * @module
 */
import type { CudaFunction, CudaStream, DevicePtr, KernelArg } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../cuda/kernel_cache.ts";
import { kvDefines, type PoolKvType } from "../kv_copy/pool_layout.ts";
import source from "./attend_plain.cu" with { type: "text" };

/** Threads of a block. */
const THREADS = 128;

/** Words of one task: query row, table word of position 0, first position, one past the last, slot. */
export const TASK_WORDS = 5;
/** Words of one node: level, first segment / 2^level, slot. */
export const NODE_WORDS = 3;
/** Words of the nodes of one token: row of the output, first node, nodes. */
export const NODE_LIST_WORDS = 3;

/** Sizes the kernels are compiled for. */
export interface AttendPlainShape {
  /** Query heads, a multiple of `kvHeads`. */
  readonly heads: number;
  /** Key and value heads. */
  readonly kvHeads: number;
  /** Width of a head, at most 256. */
  readonly headDim: number;
  /** Element type of the pool. @default {"bf16"} */
  readonly kvType?: PoolKvType;
}

/** Where one layer of a pool lies. */
export interface PoolLayer {
  /** The layer of block 0. */
  readonly layer: DevicePtr;
  /** Bytes from a block to the next. */
  readonly blockBytes: number;
}

/** Attention of tokens to the whole of their sequence so far. */
export interface AttendTokens extends PoolLayer {
  /** Query tokens. */
  readonly tokens: number;
  /** Queries, bf16 [tokens, heads, headDim]. */
  readonly q: DevicePtr;
  /** Block tables, i32 [rows, tableWidth]. */
  readonly tables: DevicePtr;
  /** Entries of a table. */
  readonly tableWidth: number;
  /** Position of each token, i32. */
  readonly positions: DevicePtr;
  /** Table of each token, i32; below 0 for padding, which is skipped. */
  readonly rows: DevicePtr;
  /** Output, bf16 [tokens, heads * headDim]. */
  readonly out: DevicePtr;
}

/** Attention of tokens to ranges of their sequences, as partials. */
export interface AttendTasks extends PoolLayer {
  /** Tasks. */
  readonly tasks: number;
  /** Queries, bf16 [rows, heads, headDim]. */
  readonly q: DevicePtr;
  /** Words with block ids, i32. */
  readonly tables: DevicePtr;
  /** Tasks, {@linkcode TASK_WORDS} i32 each. */
  readonly taskList: DevicePtr;
  /** Partials, f32 [slots, heads, headDim]. */
  readonly o: DevicePtr;
  /** Their log-sum-exp, f32 [slots, heads]. */
  readonly lse: DevicePtr;
}

/** Partials of nodes to be joined. */
export interface MergeNodes {
  /** Tokens whose nodes are joined. */
  readonly tokens: number;
  /** Partials, f32 [slots, heads, headDim]. */
  readonly o: DevicePtr;
  /** Their log-sum-exp, f32 [slots, heads]. */
  readonly lse: DevicePtr;
  /** Node list of each token, {@linkcode NODE_LIST_WORDS} i32 each. */
  readonly lists: DevicePtr;
  /** Nodes, {@linkcode NODE_WORDS} i32 each; ascending, without gaps but at the end, for each token. */
  readonly nodes: DevicePtr;
  /** Output, bf16 [rows, heads * headDim]. */
  readonly out: DevicePtr;
}

/** The compiled kernels for one shape. */
export class AttendPlain {
  readonly #heads: number;
  readonly #tokens: CudaFunction;
  readonly #tasks: CudaFunction;
  readonly #merge: CudaFunction;

  /** Compiles or finds them. */
  constructor(kernels: KernelCache, shape: AttendPlainShape) {
    const { heads, kvHeads, headDim, kvType } = shape;
    const module = kernels.module({
      name: "attend_plain",
      source,
      defines: { HEADS: heads, KV_HEADS: kvHeads, HEAD_DIM: headDim, ...kvDefines(kvType) },
    });
    this.#heads = heads;
    this.#tokens = module.function("attend_plain_tokens");
    this.#tasks = module.function("attend_plain_tasks");
    this.#merge = module.function("merge_node_partials");
  }

  /** Attends; see {@linkcode AttendTokens}. */
  attendTokens(stream: CudaStream, work: AttendTokens): void {
    this.#launch(stream, this.#tokens, {
      rows: work.tokens,
      args: [
        ...pool(work),
        { i32: work.tableWidth },
        { ptr: work.positions },
        { ptr: work.rows },
        { ptr: work.out },
      ],
    });
  }

  /** Attends; see {@linkcode AttendTasks}. */
  attendTasks(stream: CudaStream, work: AttendTasks): void {
    this.#launch(stream, this.#tasks, {
      rows: work.tasks,
      args: [...pool(work), { ptr: work.taskList }, { ptr: work.o }, { ptr: work.lse }],
    });
  }

  /** Joins; see {@linkcode MergeNodes}. */
  mergeNodes(stream: CudaStream, work: MergeNodes): void {
    this.#launch(stream, this.#merge, {
      rows: work.tokens,
      args: [{ ptr: work.o }, { ptr: work.lse }, { ptr: work.lists }, { ptr: work.nodes }, { ptr: work.out }],
    });
  }

  /** One block for each row and query head. */
  #launch(
    stream: CudaStream,
    kernel: CudaFunction,
    { rows, args }: { readonly rows: number; readonly args: readonly KernelArg[] },
  ): void {
    if (rows > 0) stream.launch(kernel, { grid: [rows, this.#heads], block: [THREADS], args });
  }
}

/** What every attention begins with. */
function pool(
  { q, layer, blockBytes, tables }: Pick<AttendTokens, "q" | "layer" | "blockBytes" | "tables">,
): readonly KernelArg[] {
  return [{ ptr: q }, { ptr: layer }, { u64: BigInt(blockBytes) }, { ptr: tables }];
}
