/**
 * Segments as bytes on the way between members: blocks end to end, in pieces, with a digest over all of them.
 *
 * @module
 */
import { createHash, type Hash } from "node:crypto";
import type { KvStore } from "../device/device.ts";

/** Most bytes of one piece. */
export const PIECE_BYTES = 16 * 1024;

/** Where the blocks of a segment are. */
export type SegmentStore = Pick<KvStore, "blockBytes" | "readBlock" | "writeBlock">;

/** Takes the pieces of one segment in order and writes whole blocks as they fill. */
export class SegmentWriter {
  readonly #store: SegmentStore;
  readonly #blocks: readonly number[];
  readonly #hash: Hash = createHash("sha256");
  readonly #block: Uint8Array;
  #next = 0;
  #broken = false;

  /** Writes to `blocks` of a store. */
  constructor(store: SegmentStore, blocks: readonly number[]) {
    this.#store = store;
    this.#blocks = blocks;
    this.#block = new Uint8Array(store.blockBytes);
  }

  /** Takes a piece. One that came before is skipped; after a gap nothing counts any more. */
  take(offset: number, bytes: Uint8Array): void {
    const { blockBytes } = this.#store;
    if (this.#broken || offset + bytes.length <= this.#next) return;
    if (offset !== this.#next || offset + bytes.length > this.#blocks.length * blockBytes) {
      this.#broken = true;
      return;
    }
    this.#hash.update(bytes);
    let from = 0;
    while (from < bytes.length) {
      const at = this.#next % blockBytes;
      const count = Math.min(bytes.length - from, blockBytes - at);
      this.#block.set(bytes.subarray(from, from + count), at);
      from += count;
      this.#next += count;
      if (at + count === blockBytes) {
        this.#store.writeBlock(this.#blocks[this.#next / blockBytes - 1], this.#block);
      }
    }
  }

  /** Whether everything came and has this digest. */
  matches(digest: string): boolean {
    if (this.#broken || this.#next !== this.#blocks.length * this.#store.blockBytes) return false;
    return this.#hash.copy().digest("hex") === digest;
  }
}

/** Gives the bytes of one segment out in pieces, in order. */
export class SegmentReader {
  readonly #store: SegmentStore;
  readonly #blocks: readonly number[];
  readonly #hash: Hash = createHash("sha256");
  #block: Uint8Array = new Uint8Array(0);
  #offset = 0;

  /** Reads `blocks` of a store, which must not change meanwhile. */
  constructor(store: SegmentStore, blocks: readonly number[]) {
    this.#store = store;
    this.#blocks = blocks;
  }

  /** The next piece; undefined when all were given. The bytes are valid until the next call. */
  next(): { readonly offset: number; readonly bytes: Uint8Array } | undefined {
    const { blockBytes } = this.#store;
    const offset = this.#offset;
    if (offset === this.#blocks.length * blockBytes) return undefined;
    const at = offset % blockBytes;
    if (at === 0) {
      this.#block = this.#store.readBlock(this.#blocks[offset / blockBytes]);
      this.#hash.update(this.#block);
    }
    const bytes = this.#block.subarray(at, Math.min(at + PIECE_BYTES, blockBytes));
    this.#offset += bytes.length;
    return { offset, bytes };
  }

  /** Digest of all bytes, once they were given. */
  get digest(): string {
    return this.#hash.copy().digest("hex");
  }
}
