/**
 * The KV pool of the reference device: f32 whatever the layout's type, values rounded to that type.
 *
 * @module
 */
import { roundKv } from "../../kernels/attend_partial/reference.ts";
import { type AttentionPartial, segmentNodes } from "../../kernels/merge_partials/spec.ts";
import { checkBlock, checkBlockBytes, checkNodeWork, checkRanges } from "./batch_check.ts";
import {
  type AttendRange,
  type KvLayout,
  type KvStore,
  type NodePartial,
  type NodeWork,
  SEGMENT_TOKENS,
} from "./device.ts";
import { checkPool } from "./kv_layout.ts";
import {
  attendSegment,
  type HeadPartial,
  type HeadTokens,
  mergeNode,
  mergeTree,
  segmentsOf,
} from "./reference_attention.ts";

/** Where the keys and values of a head lie. */
export interface HeadPlace {
  /** Layer. */
  readonly layer: number;
  /** Key and value head. */
  readonly kvHead: number;
  /** Block ids; entry 0 holds the tokens from `start` on. */
  readonly blocks: ArrayLike<number>;
  /** Position of the first token of `blocks[0]`. @default {0} */
  readonly start?: number;
}

/** A pool of KV blocks in f32, with attention in f64. */
export class ReferenceKvStore implements KvStore {
  /** See {@linkcode KvStore.layout}. */
  readonly layout: KvLayout;
  /** See {@linkcode KvStore.blocks}. */
  readonly blocks: number;
  /** See {@linkcode KvStore.blockBytes}. */
  readonly blockBytes: number;
  /** [blocks][layers][kvHeads][blockTokens][key, value][headDim] */
  readonly #pool: Float32Array<ArrayBuffer>;
  #disposed = false;

  /** Makes a zeroed pool. @throws {RangeError} when a size is out of range. */
  constructor({ layout, blocks }: { readonly layout: KvLayout; readonly blocks: number }) {
    checkPool({ layout, blocks });
    const blockValues = layout.layers * layout.kvHeads * layout.blockTokens * 2 * layout.headDim;
    this.layout = layout;
    this.blocks = blocks;
    this.blockBytes = 4 * blockValues;
    this.#pool = new Float32Array(blocks * blockValues);
  }

  /** See {@linkcode KvStore.attendNodes}. */
  attendNodes(layer: number, work: readonly NodeWork[]): readonly (readonly NodePartial[])[] {
    this.check();
    checkNodeWork(layer, work, this);
    return work.map(({ queries, segments: { from, to }, blocks }) => {
      return segmentNodes(from, to).map((node) => {
        return {
          node,
          ...this.#eachHead(queries, (query, kvHead) => {
            const place = { layer, kvHead, blocks, start: from * SEGMENT_TOKENS };
            const leaf = (segment: number) => this.#leaf(query, { place, segment, end: to * SEGMENT_TOKENS });
            return mergeNode(node.first, node.segments, { leaf, from, to, width: query.length });
          }),
        };
      });
    });
  }

  /** See `Device.attend`. */
  attend(layer: number, ranges: readonly AttendRange[]): AttentionPartial {
    this.check();
    checkRanges(layer, ranges, this);
    const { heads, headDim } = this.layout;
    const o = new Float32Array(ranges.length * heads * headDim);
    const lse = new Float32Array(ranges.length * heads);
    for (const [index, { query, blocks, start, length }] of ranges.entries()) {
      const partial = this.#eachHead(query, (query, kvHead) => {
        return this.attendTo(query, { place: { layer, kvHead, blocks, start }, end: start + length });
      });
      o.set(partial.o, index * heads * headDim);
      lse.set(partial.lse, index * heads);
    }
    return { o, lse };
  }

  /** Attention of one query head to tokens [start of the place, `end`), merged in the tree. */
  attendTo(
    query: ArrayLike<number>,
    options: {
      readonly place: HeadPlace;
      readonly end: number;
      readonly known?: (first: number, segments: number) => HeadPartial | undefined;
    },
  ): HeadPartial {
    const { place, end, known } = options;
    return mergeTree({
      leaf: (segment) => this.#leaf(query, { place, segment, end }),
      known,
      from: (place.start ?? 0) / SEGMENT_TOKENS,
      to: segmentsOf(end),
      width: query.length,
    });
  }

  /** Stores the key and value of one head and token, each [headDim]. */
  append(
    { place, position, key, value }: {
      readonly place: HeadPlace;
      readonly position: number;
      readonly key: Float64Array;
      readonly value: Float64Array;
    },
  ): void {
    const slot = this.#slot(place, position);
    const round = (x: number) => roundKv(x, this.layout.kvType);
    this.#pool.set(key.map(round), slot);
    this.#pool.set(value.map(round), slot + this.layout.headDim);
  }

  /** See {@linkcode KvStore.readBlock}. */
  readBlock(block: number): Uint8Array {
    this.check();
    checkBlock(block, this);
    return this.#block(block).slice();
  }

  /** See {@linkcode KvStore.writeBlock}. */
  writeBlock(block: number, bytes: Uint8Array): void {
    this.check();
    checkBlockBytes(block, bytes, this);
    this.#block(block).set(bytes);
  }

  /** Makes the pool unusable; its memory goes with it. */
  [Symbol.dispose](): void {
    this.#disposed = true;
  }

  /** @throws {ReferenceError} after dispose. */
  check(): void {
    if (this.#disposed) throw new ReferenceError("Cannot use the device: it was disposed");
  }

  #eachHead(
    queries: Float32Array,
    attend: (query: Float32Array, kvHead: number) => HeadPartial,
  ): AttentionPartial {
    const { heads, kvHeads, headDim } = this.layout;
    const rows = queries.length / headDim;
    const o = new Float32Array(queries.length);
    const lse = new Float32Array(rows);
    for (let row = 0; row < rows; row++) {
      const query = queries.subarray(row * headDim, (row + 1) * headDim);
      const partial = attend(query, Math.floor((row % heads) / (heads / kvHeads)));
      o.set(partial.o, row * headDim);
      lse[row] = partial.lse;
    }
    return { o, lse };
  }

  #leaf(
    query: ArrayLike<number>,
    { place, segment, end }: { readonly place: HeadPlace; readonly segment: number; readonly end: number },
  ): HeadPartial {
    const first = segment * SEGMENT_TOKENS;
    return attendSegment(query, this.#tokens(place, { from: first, to: Math.min(first + SEGMENT_TOKENS, end) }));
  }

  #tokens(place: HeadPlace, { from, to }: { readonly from: number; readonly to: number }): HeadTokens {
    return { pool: this.#pool, slots: Array.from({ length: to - from }, (_, i) => this.#slot(place, from + i)) };
  }

  /** Index of the key of a token. */
  #slot({ layer, kvHead, blocks, start = 0 }: HeadPlace, position: number): number {
    const { layers, kvHeads, headDim, blockTokens } = this.layout;
    const block = blocks[Math.floor((position - start) / blockTokens)];
    const page = (block * layers + layer) * kvHeads + kvHead;
    return (page * blockTokens + position % blockTokens) * 2 * headDim;
  }

  #block(block: number): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#pool.buffer, block * this.blockBytes, this.blockBytes);
  }
}
