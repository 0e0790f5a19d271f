/**
 * The toy model's pool of KV blocks: all that a holder has.
 *
 * @module
 */
import { segmentNodes } from "../../kernels/merge_partials/spec.ts";
import type { KvLayout, KvStore, NodePartial, NodeWork } from "../../runtime/device/device.ts";
import { mix32 } from "./random.ts";
import { queryOf, TOY_HEAD_DIM, TOY_HEADS, TOY_LAYERS, TOY_WIDTH, TOY_WORDS, ToySum } from "./toy_model.ts";

/** Sizes of a {@linkcode ToyStore}. */
export interface ToyStoreOptions {
  /** Blocks. */
  readonly blocks: number;
  /** Tokens of one block. */
  readonly blockTokens: number;
  /** Told what must never happen: KV read that nobody wrote, of another position, or torn. */
  readonly onFault: (message: string) => void;
}

/** What freed blocks are filled with. */
const POISON = 0xdeadbeef;

/** Places of the words of a stored token. */
const KEY = 0;
const POSITION = 1;
const CHECK = 2;

function checkWord(key: number, position: number): number {
  return mix32(key ^ Math.imul(position + 1, 0xc2b2ae35));
}

/** KV blocks in which every stored token knows its position and whether it is whole. */
export class ToyStore implements KvStore {
  /** See {@linkcode KvStore.layout}. */
  readonly layout: KvLayout;
  /** See {@linkcode KvStore.blocks}. */
  readonly blocks: number;
  /** See {@linkcode KvStore.blockBytes}. */
  readonly blockBytes: number;
  /** Whether what must never happen is let pass: a step that times the device reads whatever is there. */
  unchecked = false;
  readonly #onFault: (message: string) => void;
  readonly #words: Uint32Array<ArrayBuffer>;
  readonly #writes: Uint32Array;
  readonly #sum = new ToySum();

  /** Makes poisoned blocks. */
  constructor({ blocks, blockTokens, onFault }: ToyStoreOptions) {
    this.layout = {
      layers: TOY_LAYERS,
      heads: TOY_HEADS,
      kvHeads: 1,
      headDim: TOY_HEAD_DIM,
      blockTokens,
      kvType: "f32",
    };
    this.blocks = blocks;
    this.blockBytes = 4 * TOY_LAYERS * blockTokens * TOY_WORDS;
    this.#onFault = onFault;
    this.#words = new Uint32Array(blocks * this.blockBytes / 4).fill(POISON);
    this.#writes = new Uint32Array(blocks);
  }

  /** Times anything was written to a block. */
  writes(block: number): number {
    return this.#writes[block];
  }

  /** Tells of something that must never happen. */
  fault(message: string): void {
    if (!this.unchecked) this.#onFault(message);
  }

  /** Makes the content of a block unusable. */
  poison(block: number): void {
    this.#block(block).fill(POISON);
  }

  /** See {@linkcode KvStore.attendNodes}. */
  attendNodes(layer: number, work: readonly NodeWork[]): readonly (readonly NodePartial[])[] {
    if (!Number.isInteger(layer) || layer < 0 || layer >= TOY_LAYERS) {
      throw new RangeError(`Cannot attend: layer must be in 0..${TOY_LAYERS - 1}, got ${layer}`);
    }
    return work.map(({ queries, segments, blocks }) => {
      const count = segments.to - segments.from;
      const tokens = queries.length / TOY_WIDTH;
      if (!(count >= 1) || !Number.isInteger(blocks.length / count) || !Number.isInteger(tokens) || tokens < 1) {
        throw new RangeError(
          `Cannot attend: ${blocks.length} blocks for ${count} segments, ${queries.length} values of queries`,
        );
      }
      const segmentTokens = blocks.length / count * this.layout.blockTokens;
      return segmentNodes(segments.from, segments.to).map((node): NodePartial => {
        const partial = {
          node,
          o: new Float32Array(tokens * TOY_WIDTH),
          lse: new Float32Array(tokens * TOY_HEADS),
        };
        const first = node.first * segmentTokens;
        const keys = this.keys(layer, {
          blocks,
          base: segments.from * segmentTokens,
          from: first,
          to: first + node.segments * segmentTokens,
        });
        for (let row = 0; row < tokens * TOY_HEADS; row++) {
          this.#attendRow(keys, { queries, row });
          this.#sum.store(partial, row);
        }
        return partial;
      });
    });
  }

  /** See {@linkcode KvStore.readBlock}. */
  readBlock(block: number): Uint8Array {
    return new Uint8Array(this.#block(block).slice().buffer);
  }

  /** See {@linkcode KvStore.writeBlock}. */
  writeBlock(block: number, bytes: Uint8Array): void {
    if (bytes.length !== this.blockBytes) {
      throw new RangeError(`Cannot write block ${block}: wanted ${this.blockBytes} bytes, got ${bytes.length}`);
    }
    this.#block(block).set(new Uint32Array(bytes.slice().buffer));
    this.#writes[block]++;
  }

  /** Gives nothing back: the memory is the garbage collector's. */
  [Symbol.dispose](): void {}

  /** Stores a token's key. */
  write(layer: number, place: { readonly block: number; readonly position: number }, key: number): void {
    const { block, position } = place;
    const words = this.#token(layer, block, position);
    for (let i = 0; i < TOY_WORDS; i++) words[i] = mix32(key + i);
    words[KEY] = key;
    words[POSITION] = position;
    words[CHECK] = checkWord(key, position);
    this.#writes[block]++;
  }

  /** Keys of positions [from, to), where `blocks[0]` begins at position `base`. */
  keys(
    layer: number,
    range: { readonly blocks: ArrayLike<number>; readonly base: number; readonly from: number; readonly to: number },
  ): Uint32Array {
    const { blocks, base, from, to } = range;
    const keys = new Uint32Array(to - from);
    for (let position = from; position < to; position++) {
      const block = blocks[Math.floor((position - base) / this.layout.blockTokens)];
      const words = this.#token(layer, block, position);
      const key = words[KEY];
      if (words[POSITION] !== position || words[CHECK] !== checkWord(key, position)) {
        const found = key === POISON ? "nothing" : `KV of position ${words[POSITION]}`;
        this.fault(`I2: block ${block} is read for position ${position} of layer ${layer}, it holds ${found}`);
      }
      keys[position - from] = key;
    }
    return keys;
  }

  /** Sums of row `row` (token times heads plus head) of queries over keys; valid until the next call. */
  sumRow(keys: Uint32Array, options: { readonly queries: Float32Array; readonly row: number }): ToySum {
    this.#attendRow(keys, options);
    return this.#sum;
  }

  #attendRow(keys: Uint32Array, { queries, row }: { readonly queries: Float32Array; readonly row: number }): void {
    const head = row % TOY_HEADS;
    const query = queryOf(queries, row * TOY_HEAD_DIM);
    this.#sum.clear();
    for (let i = 0; i < keys.length; i++) this.#sum.add(head, query, keys[i]);
  }

  #token(layer: number, block: number, position: number): Uint32Array {
    const { blockTokens } = this.layout;
    const at = (layer * blockTokens + position % blockTokens) * TOY_WORDS;
    return this.#block(block).subarray(at, at + TOY_WORDS);
  }

  #block(block: number): Uint32Array<ArrayBuffer> {
    if (!Number.isInteger(block) || block < 0 || block >= this.blocks) {
      throw new RangeError(`Cannot access a block: wanted an id in 0..${this.blocks - 1}, got ${block}`);
    }
    const words = this.blockBytes / 4;
    return this.#words.subarray(block * words, (block + 1) * words);
  }
}
