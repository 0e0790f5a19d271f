/**
 * A pool of KV blocks in the memory of the kernel module, with attention to it: the KV of a {@linkcode WasmDevice}, and,
 * without a model, all of a holder.
 *
 * @module
 */
import { KV_CODE } from "../../kernels/attend_partial/spec.ts";
import type { KvType } from "../../kernels/dtype.ts";
import type { AttentionPartial } from "../../kernels/merge_partials/spec.ts";
import { openWasm, type WasmRuntime } from "../../kernels/wasm/instance.ts";
import type { ThreadStarter } from "../../kernels/wasm/threads.ts";
import { attendNodesWith, attendRangesWith, type RangesOfOne } from "./attended_ranges.ts";
import { checkBlock, checkBlockBytes, checkNodeWork, checkRanges } from "./batch_check.ts";
import type { AttendRange, KvLayout, KvStore, NodePartial, NodeWork } from "./device.ts";
import { HostBuffer } from "./host_buffer.ts";
import { checkPool } from "./kv_layout.ts";

/** Words of one `PoolWork` (`attend_pool.rs`). */
const WORK_WORDS = 8;
/** Memory of a store beside its blocks: stacks, scratch of the threads, queries and results of a call. */
const RESERVE_BYTES = 64 << 20;
/** Most bytes of a 32-bit WebAssembly memory. */
const MEMORY_BYTES = 2 ** 32;

/** How to open a store. */
export interface OpenKvStoreOptions {
  /** Shape of its blocks. */
  readonly layout: KvLayout;
  /** Blocks in the pool. */
  readonly blocks: number;
  /** Compute threads, the calling one included. @default {1} */
  readonly threads?: number;
  /** Pins each compute thread to a CPU where that is possible. @default {false} */
  readonly pin?: boolean;
  /** Starts the compute threads. @default {Workers of the calling thread} */
  readonly startThread?: ThreadStarter;
  /** Most bytes the memory may grow to; a whole number of 64 KiB pages, at most 4 GiB. @default {4294967296} */
  readonly maxMemoryBytes?: number;
}

/** A pool of KV blocks on CPU cores. */
export class WasmKvStore implements KvStore {
  /** See {@linkcode KvStore.layout}. */
  readonly layout: KvLayout;
  /** See {@linkcode KvStore.blocks}. */
  readonly blocks: number;
  /** See {@linkcode KvStore.blockBytes}. */
  readonly blockBytes: number;
  /** Address of the pool's description, for the kernels of a step. */
  readonly pool: number;
  readonly #runtime: WasmRuntime;
  readonly #attention: number;
  readonly #work: HostBuffer;
  readonly #block: HostBuffer;

  /**
   * Makes a pool in the memory of `runtime`, which it takes over. Memory of blocks that were never written stays untaken.
   *
   * @throws {RangeError} when a size is out of range or memory is exhausted.
   */
  constructor(runtime: WasmRuntime, options: { readonly layout: KvLayout; readonly blocks: number }) {
    checkPool(options);
    const { layout, blocks } = options;
    const { layers, heads, kvHeads, headDim, blockTokens, kvType } = layout;
    this.layout = layout;
    this.blocks = blocks;
    const code = kvCode(kvType);
    this.blockBytes = wasmBlockBytes(runtime, layout);
    this.#runtime = runtime;
    this.#work = new HostBuffer(runtime);
    this.#block = new HostBuffer(runtime);
    this.pool = runtime.exports.kv_pool_new(
      runtime.grow(blocks * this.blockBytes),
      blocks,
      layers,
      kvHeads,
      headDim,
      blockTokens,
      code,
    );
    this.#attention = runtime.exports.pool_attention_new(runtime.team, this.pool, heads / kvHeads);
    if (this.#attention === 0) throw new RangeError("Cannot make a KV pool: no memory is left for its attention");
  }

  /** See {@linkcode KvStore.attendNodes}. */
  attendNodes(layer: number, work: readonly NodeWork[]): readonly (readonly NodePartial[])[] {
    checkNodeWork(layer, work, this);
    return attendNodesWith((all) => this.#attend(layer, all), { work, blockTokens: this.layout.blockTokens });
  }

  /** See `Device.attend`. */
  attend(layer: number, ranges: readonly AttendRange[]): AttentionPartial {
    checkRanges(layer, ranges, this);
    return attendRangesWith((all) => this.#attend(layer, all), { ranges, layout: this.layout });
  }

  /** See {@linkcode KvStore.readBlock}. */
  readBlock(block: number): Uint8Array {
    checkBlock(block, this);
    const address = this.#block.reserve(this.blockBytes / 4);
    this.#runtime.exports.kv_read_block(this.pool, block, address);
    return this.#runtime.u8(address, this.blockBytes).slice();
  }

  /** See {@linkcode KvStore.writeBlock}. */
  writeBlock(block: number, bytes: Uint8Array): void {
    checkBlockBytes(block, bytes, this);
    const address = this.#block.reserve(this.blockBytes / 4);
    this.#runtime.u8(address, bytes.length).set(bytes);
    this.#runtime.exports.kv_write_block(this.pool, block, address);
  }

  /** Stops the compute threads and frees the memory. */
  [Symbol.dispose](): void {
    this.#runtime[Symbol.dispose]();
  }

  /** One partial for each range, in order. Views, valid until the next call. */
  #attend(layer: number, all: readonly RangesOfOne[]): AttentionPartial[] {
    const { heads, headDim } = this.layout;
    const runtime = this.#runtime;
    const count = all.reduce((sum, { ranges }) => sum + ranges.length, 0);
    const words = all.reduce((sum, { queries, blockCount, ranges }) => {
      return sum + blockCount + queries.length + ranges.length * (queries.length + queries.length / headDim);
    }, WORK_WORDS * count);
    const address = this.#work.reserve(words);
    const u32 = runtime.u32(address, words);
    const f32 = runtime.f32(address, words);
    const partials: AttentionPartial[] = [];
    let record = 0;
    let next = WORK_WORDS * count;
    for (const { queries, blocks, blockCount, start, ranges } of all) {
      const tokens = queries.length / (heads * headDim);
      const blocksAt = address + 4 * next;
      for (let i = 0; i < blockCount; i++) u32[next++] = blocks[i];
      const queriesAt = address + 4 * next;
      f32.set(queries, next);
      next += queries.length;
      for (const { from, to } of ranges) {
        const o = next;
        const lse = o + queries.length;
        next = lse + tokens * heads;
        u32.set([blocksAt, start, from, to, tokens, queriesAt, address + 4 * o, address + 4 * lse], record);
        record += WORK_WORDS;
        partials.push({ o: f32.subarray(o, lse), lse: f32.subarray(lse, next) });
      }
    }
    if (count > 0) runtime.exports.pool_attention_run(this.#attention, layer, address, count);
    return partials;
  }
}

/** Bytes of one block of a WASM pool. */
export function wasmBlockBytes(runtime: WasmRuntime, layout: KvLayout): number {
  const { layers, kvHeads, headDim, blockTokens, kvType } = layout;
  return runtime.exports.kv_block_bytes(layers, kvHeads, headDim, blockTokens, kvCode(kvType));
}

function kvCode(kvType: KvType): number {
  if (kvType !== "fp8") return KV_CODE[kvType];
  throw new RangeError("Cannot make a KV pool: processors store f32, f16 or bf16, got fp8");
}

/**
 * Opens a pool without a model. Takes milliseconds whatever its size: memory is taken when blocks are written.
 *
 * @throws {RangeError} when a size is out of range or the pool does not fit into the memory, naming both.
 */
export async function openKvStore(options: OpenKvStoreOptions): Promise<KvStore> {
  checkPool(options);
  const { layout, blocks, threads = 1, pin, startThread, maxMemoryBytes = MEMORY_BYTES } = options;
  const runtime = await openWasm({ threads, pin, startThread, maxMemoryBytes });
  try {
    const bytes = blocks * wasmBlockBytes(runtime, layout);
    if (bytes + RESERVE_BYTES > maxMemoryBytes) {
      throw new RangeError(
        `Cannot open a KV store: ${Math.ceil(bytes / 2 ** 20)} MiB of blocks plus ${RESERVE_BYTES / 2 ** 20} MiB for ` +
          `attention exceed its ${maxMemoryBytes / 2 ** 20} MiB`,
      );
    }
    return new WasmKvStore(runtime, { layout, blocks });
  } catch (error) {
    runtime[Symbol.dispose]();
    throw error;
  }
}
