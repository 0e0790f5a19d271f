/**
 * Sequences in a paged pool, for tests of attention on a GPU.
 *
 * @module
 */
import { bf16Bits, roundBf16 } from "../cuda/test_gpu.ts";
import { e4m3Bits } from "../e4m3.ts";
import { POOL_BLOCK_TOKENS, type PoolKvType, PoolLayout } from "../kv_copy/pool_layout.ts";
import type { AttentionPartial } from "../merge_partials/spec.ts";
import { attendPartialReference, roundKv } from "./reference.ts";
import { SEEDS } from "./spec.ts";
import { randomValues, shuffled } from "./test_data.ts";

/** A block id that faults when it is used. */
const HOSTILE = 0x7ffffff0;
const NAN_BYTE = 0x7f;
const LAYER = 1;

/** Heads of a model and the type of its pool. */
export interface PagedShape {
  /** Query heads. */
  readonly heads: number;
  /** Key and value heads. */
  readonly kvHeads: number;
  /** Width of a head. */
  readonly headDim: number;
  /** Element type of the pool. */
  readonly kvType: PoolKvType;
}

/** Sequences in layer 1 of a pool whose other memory is NaN and whose tables name no other block. */
export class PagedSequences {
  /** Heads and type. */
  readonly shape: PagedShape;
  /** Tokens of each sequence. */
  readonly lengths: readonly number[];
  /** Layout of the pool. */
  readonly pool: PoolLayout;
  /** Byte of the layer within a block. */
  readonly layerAt: number;
  /** The pool. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Entries of a table. */
  readonly tableWidth: number;
  /** Block ids, [sequences, tableWidth]. */
  readonly tables: Int32Array<ArrayBuffer>;
  /** A query for each sequence, numbers of bf16, [sequences, heads, headDim]. */
  readonly q: Float32Array<ArrayBuffer>;
  readonly #keys: readonly Float32Array[];
  readonly #values: readonly Float32Array[];

  /** Makes random ones; keys and values are within 1 of 0. */
  constructor(shape: PagedShape, lengths: readonly number[], seed: number = SEEDS.test) {
    const { heads, kvHeads, headDim, kvType } = shape;
    this.shape = shape;
    this.lengths = lengths;
    this.pool = new PoolLayout({ layers: 2, kvHeads, headDim, kvType });
    this.layerAt = LAYER * this.pool.layerBytes;
    const pages = lengths.map((length) => Math.ceil(length / POOL_BLOCK_TOKENS));
    const blocks = pages.reduce((sum, count) => sum + count, 1);
    const order = shuffled(blocks, seed);
    this.tableWidth = Math.max(...pages) + 3;
    this.tables = new Int32Array(lengths.length * this.tableWidth).fill(HOSTILE);
    this.q = randomValues(lengths.length * heads * headDim, seed + 1, 3).map(roundBf16);
    const stored = (length: number, seed: number) =>
      randomValues(length * kvHeads * headDim, seed, 1).map((value) => roundKv(value, kvType));
    this.#keys = lengths.map((length, i) => stored(length, seed + 2 + 2 * i));
    this.#values = lengths.map((length, i) => stored(length, seed + 3 + 2 * i));
    this.bytes = new Uint8Array(blocks * this.pool.blockBytes).fill(NAN_BYTE);
    let used = 0;
    pages.forEach((count, sequence) => {
      for (let page = 0; page < count; page++) {
        const block = order[used++];
        this.tables[sequence * this.tableWidth + page] = block;
        this.#fill(block, { sequence, first: page * POOL_BLOCK_TOKENS });
      }
    });
  }

  #fill(block: number, { sequence, first }: { readonly sequence: number; readonly first: number }): void {
    const { kvHeads, headDim, kvType } = this.shape;
    const count = Math.min(this.lengths[sequence] - first, POOL_BLOCK_TOKENS);
    const view = new DataView(this.bytes.buffer);
    for (const value of [false, true]) {
      const source = (value ? this.#values : this.#keys)[sequence];
      for (let slot = 0; slot < count; slot++) {
        for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
          const row = ((first + slot) * kvHeads + kvHead) * headDim;
          for (let dim = 0; dim < this.pool.paddedDim; dim++) {
            const at = block * this.pool.blockBytes + this.pool.offset({ layer: LAYER, kvHead, value, slot, dim });
            const number = dim < headDim ? source[row + dim] : 0;
            if (kvType === "fp8") view.setUint8(at, e4m3Bits(number));
            else view.setUint16(at, bf16Bits(number), true);
          }
        }
      }
    }
  }

  /** Query `row` over tokens [from, to) of a sequence, in f64. */
  reference(row: number, sequence: number, from = 0, to = this.lengths[sequence]): AttentionPartial {
    const { heads, kvHeads, headDim } = this.shape;
    const slice = (tensor: Float32Array) => tensor.subarray(from * kvHeads * headDim, to * kvHeads * headDim);
    return attendPartialReference({
      heads,
      kvHeads,
      headDim,
      q: this.q.subarray(row * heads * headDim, (row + 1) * heads * headDim),
      k: slice(this.#keys[sequence]),
      v: slice(this.#values[sequence]),
    });
  }
}
