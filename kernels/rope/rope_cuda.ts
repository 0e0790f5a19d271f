/**
 * Launches `rope_table.cu` and `rope_append.cu`.
 *
 * @module
 */
import type { CudaFunction, CudaStream, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../cuda/kernel_cache.ts";
import { kvDefines, type PoolKvType, PoolLayout } from "../kv_copy/pool_layout.ts";
import appendSource from "./rope_append.cu" with { type: "text" };
import tableSource from "./rope_table.cu" with { type: "text" };

/** Threads of a block of `rope_append`. */
const THREADS = 128;
/** No array. */
const NULL = 0n as DevicePtr;

/** Sizes and constants of a model's heads. */
export interface RopeShape {
  /** Query heads. */
  readonly heads: number;
  /** Key and value heads. */
  readonly kvHeads: number;
  /** Width of a head. */
  readonly headDim: number;
  /** Rotated pairs of a head, at most `headDim / 2`. */
  readonly pairs: number;
  /** Which values form a pair: (2i, 2i + 1) or (i, i + pairs). */
  readonly pairing: "adjacent" | "halves";
  /** Factor on cosine and sine. @default {1} */
  readonly magnitude?: number;
  /** Element type of the product that the heads come from. */
  readonly input: "bf16" | "f32";
  /** Element type of the pool. @default {"bf16"} */
  readonly kvType?: PoolKvType;
}

/** Arrays of the table of a step, on the device. */
export interface RopeTableWork {
  /** Absolute position of each token, u32 [T]. */
  readonly positions: DevicePtr;
  /** Number of tokens, one u32. */
  readonly count: DevicePtr;
  /** Radians per token of each pair, f64 [pairs]. */
  readonly inverseFrequencies: DevicePtr;
  /** Cosine and sine of each token and pair, f32 [T, pairs, 2], aligned to 16 bytes. */
  readonly turns: DevicePtr;
  /** Tokens that every array has room for; fixes the grid. Rows from `count` on are read, not used. */
  readonly tokens: number;
  /** Whether the launch may begin before its predecessor has ended. @default {false} */
  readonly programmatic?: boolean;
}

/** Arrays of one layer, on the device. */
export interface RopeAppendWork {
  /** Query, key and value heads of each token, [T, heads + 2 kvHeads, headDim], aligned to 16 bytes. */
  readonly qkv: DevicePtr;
  /** Added to each token's heads, f32 [heads + 2 kvHeads, headDim], aligned to 16 bytes. @default {nothing} */
  readonly bias?: DevicePtr;
  /** The step's table. */
  readonly turns: DevicePtr;
  /** Absolute position of each token, u32 [T]. */
  readonly positions: DevicePtr;
  /** Row of `tables` of each token, i32 [T]; nothing goes to the pool for a token of a negative one. */
  readonly sequences: DevicePtr;
  /** Block ids, i32 [sequences, maxBlocks]; an entry is read only if a token lies in it. */
  readonly tables: DevicePtr;
  /** Width of `tables`. */
  readonly maxBlocks: number;
  /** Number of tokens, one u32. */
  readonly count: DevicePtr;
  /** Rotated queries, bf16 [T, heads, headDim], aligned to 16 bytes. */
  readonly q: DevicePtr;
  /** Address of the layer within block 0 of the pool. */
  readonly pool: DevicePtr;
  /** Bytes of a block of the pool over all layers. */
  readonly blockBytes: number;
  /** Blocks of the pool; ids beyond write nothing. */
  readonly blocks: number;
  /** Tokens that every array has room for; fixes the grid. Rows from `count` on are read, not used. */
  readonly tokens: number;
  /** Whether the launch may begin before its predecessor has ended. @default {false} */
  readonly programmatic?: boolean;
}

/** Rotary embedding of queries and keys, and the way of keys and values into the pool. */
export class RopeKernels {
  readonly #table: CudaFunction;
  readonly #append: CudaFunction;
  readonly #tableThreads: number;
  readonly #slices: number;
  readonly #magnitude: number;

  /** Compiles or finds them. */
  constructor(kernels: KernelCache, shape: RopeShape) {
    const { heads, kvHeads, headDim, pairs, pairing, magnitude = 1, input, kvType } = shape;
    this.#magnitude = magnitude;
    this.#tableThreads = Math.ceil(pairs / 32) * 32;
    this.#table = kernels.module({
      name: "rope_table",
      source: tableSource,
      defines: { PAIRS: pairs, THREADS: this.#tableThreads },
    }).function("rope_table");
    this.#append = kernels.module({
      name: "rope_append",
      source: appendSource,
      defines: {
        HEADS: heads,
        KV_HEADS: kvHeads,
        DIM: headDim,
        PAIRS: pairs,
        HALVES: pairing === "halves" ? 1 : 0,
        IN: input === "f32" ? "float" : "bf16",
        ...kvDefines(kvType),
      },
    }).function("rope_append");
    const vector = headDim % 8 === 0 && pairs % 8 === 0 ? 8 : 1;
    const { paddedDim } = new PoolLayout({ layers: 1, kvHeads, headDim });
    const head = (headDim - pairs) / vector;
    const units = heads * head + kvHeads * (head + headDim / vector + 2 * (paddedDim - headDim) / vector);
    this.#slices = Math.ceil(units / THREADS);
  }

  /** Makes the table of the first `count` tokens of a step, for all its layers. */
  makeTable(stream: CudaStream, work: RopeTableWork): void {
    const { positions, count, inverseFrequencies, turns, tokens, programmatic } = work;
    stream.launch(this.#table, {
      grid: [tokens],
      block: [this.#tableThreads],
      args: [
        { ptr: positions },
        { ptr: count },
        { ptr: inverseFrequencies },
        { ptr: turns },
        { f32: this.#magnitude },
      ],
      programmatic,
    });
  }

  /** Rotates the first `count` tokens of a layer and stores their keys and values. */
  append(stream: CudaStream, work: RopeAppendWork): void {
    const { qkv, bias = NULL, turns, positions, sequences, tables, count, q, pool } = work;
    stream.launch(this.#append, {
      grid: [this.#slices, work.tokens],
      block: [THREADS],
      args: [
        ...[qkv, bias, turns, positions, sequences, tables, count, q, pool].map((ptr) => ({ ptr })),
        { u64: BigInt(work.blockBytes) },
        { u32: work.blocks },
        { u32: work.maxBlocks },
      ],
      programmatic: work.programmatic,
    });
  }
}
