/**
 * A paged KV pool in the kernel module's memory, outside of any model.
 *
 * @module
 */
import { Arena } from "../arena.ts";
import { type HostKvType, KV_ELEMENT_BYTES } from "../dtype.ts";
import type { AttentionPartial } from "../merge_partials/spec.ts";
import type { WasmRuntime } from "../wasm/instance.ts";
import { KV_CODE, MAX_HEAD_DIM } from "./spec.ts";

/** Sizes of a pool. */
export interface KvPoolShape {
  /** Blocks in the pool. */
  readonly blocks: number;
  /** Tokens of one block: 8, 16, 32, 64, 128 or 256. */
  readonly blockTokens: number;
  /** Layers. */
  readonly layers: number;
  /** Key and value heads. */
  readonly kvHeads: number;
  /** Width of a head, at most 256. */
  readonly headDim: number;
  /** Element type. */
  readonly kvType: HostKvType;
}

/** What to attend to, and how to spread the work. */
export interface PoolAttend {
  /** Layer. */
  readonly layer: number;
  /** Block ids; entry 0 holds the tokens from `tableStart` on. */
  readonly table: ArrayLike<number>;
  /** Absolute position of the first token of `table[0]`, a multiple of the block size. @default {0} */
  readonly tableStart?: number;
  /** First position attended to, a multiple of the block size. @default {tableStart} */
  readonly from?: number;
  /** One past the last position attended to. */
  readonly to: number;
  /** Absolute position of the first query token; without it every query attends to the whole range. */
  readonly firstPosition?: number;
  /** Query heads that share a KV head. */
  readonly group: number;
  /** Queries, [T, kvHeads * group, headDim]. */
  readonly q: Float32Array;
  /** Query tokens of one task. @default {about 96 rows} */
  readonly tile?: number;
  /** Segments of one task, a power of two, when tasks are also cut by segment. */
  readonly span?: number;
}

/** A pool of KV blocks; holds memory of the runtime until it is disposed. */
export class WasmKvPool implements Disposable {
  /** Its sizes. */
  readonly shape: KvPoolShape;
  /** Bytes of one block. */
  readonly blockBytes: number;
  /** Address of the blocks. */
  readonly base: number;
  readonly #wasm: WasmRuntime;
  readonly #arena: Arena;
  readonly #pool: number;
  #disposed = false;

  /** Allocates a zeroed pool. @throws {RangeError} when a size is out of range or memory is exhausted. */
  constructor(wasm: WasmRuntime, shape: KvPoolShape) {
    const { blocks, blockTokens, layers, kvHeads, headDim, kvType } = shape;
    if (![8, 16, 32, 64, 128, 256].includes(blockTokens) || !(headDim >= 1 && headDim <= MAX_HEAD_DIM)) {
      throw new RangeError(
        `Cannot make a KV pool: blockTokens must be 8, 16, ... or 256 and headDim 1 to ${MAX_HEAD_DIM}, ` +
          `got ${blockTokens} and ${headDim}`,
      );
    }
    this.shape = shape;
    this.#wasm = wasm;
    this.#arena = new Arena(wasm);
    const code = KV_CODE[kvType];
    this.blockBytes = wasm.exports.kv_block_bytes(layers, kvHeads, headDim, blockTokens, code);
    this.base = this.#arena.bytes(blocks * this.blockBytes);
    this.#pool = wasm.exports.kv_pool_new(this.base, blocks, layers, kvHeads, headDim, blockTokens, code);
  }

  /** Bytes of one element. */
  get elementBytes(): number {
    return KV_ELEMENT_BYTES[this.shape.kvType];
  }

  /** Fills every byte of the pool, for tests that poison what must not be read. */
  fill(byte: number): void {
    this.#wasm.u8(this.base, this.shape.blocks * this.blockBytes).fill(byte);
  }

  /** Stores the tokens of k and v, [L, kvHeads, headDim], from `position` on. `table[0]` holds position 0. */
  append(at: { layer: number; table: ArrayLike<number>; position: number; k: Float32Array; v: Float32Array }): void {
    using arena = new Arena(this.#wasm);
    const table = arena.copy(Uint32Array.from(at.table));
    const tokens = at.k.length / (this.shape.kvHeads * this.shape.headDim);
    const [k, v] = [arena.copy(at.k), arena.copy(at.v)];
    this.#wasm.exports.kv_append(this.#address, at.layer, table, at.position, tokens, k, v);
  }

  /** The bytes of a block. */
  readBlock(block: number): Uint8Array {
    using arena = new Arena(this.#wasm);
    const target = arena.bytes(this.blockBytes);
    this.#wasm.exports.kv_read_block(this.#address, block, target);
    return this.#wasm.u8(target, this.blockBytes).slice();
  }

  /** Overwrites a block with what {@linkcode readBlock} of such a pool returned. */
  writeBlock(block: number, bytes: Uint8Array): void {
    using arena = new Arena(this.#wasm);
    const source = arena.bytes(this.blockBytes);
    this.#wasm.u8(source, this.blockBytes).set(bytes);
    this.#wasm.exports.kv_write_block(this.#address, block, source);
  }

  /** Attention over tokens of the pool, by all threads of the runtime: o [T, heads, headDim], lse [T, heads]. */
  attend(options: PoolAttend): AttentionPartial {
    const { layer, group, q, to, tableStart = 0, from = tableStart, firstPosition, tile = 0, span = 0 } = options;
    const { kvHeads, headDim } = this.shape;
    const rows = q.length / headDim;
    using arena = new Arena(this.#wasm);
    const [table, query] = [arena.copy(Uint32Array.from(options.table)), arena.copy(q)];
    const [o, lse] = [arena.poisoned(q.length), arena.poisoned(rows)];
    this.#wasm.exports.attend_run(
      this.#wasm.team,
      this.#address,
      layer,
      table,
      tableStart,
      from,
      to,
      firstPosition ?? 2 ** 32 - 1,
      rows / (kvHeads * group),
      group,
      query,
      o,
      lse,
      tile,
      span,
    );
    return { o: this.#wasm.f32(o, q.length).slice(), lse: this.#wasm.f32(lse, rows).slice() };
  }

  /** Frees the pool. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#wasm.exports.kv_pool_free(this.#pool);
    this.#arena[Symbol.dispose]();
  }

  get #address(): number {
    if (this.#disposed) throw new ReferenceError("Cannot use the KV pool: it was disposed");
    return this.#pool;
  }
}
