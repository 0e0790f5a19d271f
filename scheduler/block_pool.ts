/**
 * Who holds which KV block. Integers only: the pool knows neither tokens nor time nor a device.
 *
 * A block is *free* (no content), *owned* (one reference or more) or *cached* (no reference, content findable by its
 * digest, given away in least-recently-used order). free + owned + cached = total, always.
 *
 * @module
 */
import { LruList } from "./lru_list.ts";

/** Index of a KV block in the pool of one device. */
export type BlockId = number & { readonly brand: "BlockId" };

/** Counts of a pool. */
export interface BlockCounts {
  /** Blocks in all. */
  readonly total: number;
  /** Blocks without content. */
  readonly free: number;
  /** Blocks with at least one reference. */
  readonly owned: number;
  /** Blocks without a reference whose content can still be found. */
  readonly cached: number;
}

/** Block ids, reference counts, and the index of the prefix cache. */
export class BlockPool {
  /** Blocks in all. */
  readonly total: number;
  readonly #references: Int32Array;
  readonly #generations: Uint32Array;
  readonly #digests: (string | undefined)[];
  readonly #index = new Map<string, BlockId>();
  readonly #free: BlockId[];
  readonly #cached: LruList;
  #owned = 0;

  /**
   * Makes a pool of free blocks.
   *
   * @throws {RangeError} when `total` is not a positive integer.
   */
  constructor(total: number) {
    if (!Number.isInteger(total) || total < 1) {
      throw new RangeError(`Cannot make a block pool: wanted a positive number of blocks, got ${total}`);
    }
    this.total = total;
    this.#references = new Int32Array(total);
    this.#generations = new Uint32Array(total);
    this.#digests = new Array<string | undefined>(total).fill(undefined);
    this.#free = Array.from({ length: total }, (_, i) => (total - 1 - i) as BlockId);
    this.#cached = new LruList(total);
  }

  /** Current counts. */
  get counts(): BlockCounts {
    return { total: this.total, free: this.#free.length, owned: this.#owned, cached: this.#cached.size };
  }

  /** Blocks that {@linkcode allocate} can hand out: free ones, and cached ones that it would evict. */
  get available(): number {
    return this.#free.length + this.#cached.size;
  }

  /** References to `block`. */
  references(block: BlockId): number {
    return this.#references[block];
  }

  /** Number of times the content of `block` was given up; with the id it names one content. */
  generation(block: BlockId): number {
    return this.#generations[block];
  }

  /**
   * Takes a block without content, with one reference. Evicts the least recently used cached block when none is free.
   *
   * @throws {RangeError} when every block is owned.
   */
  allocate(): BlockId {
    if (this.#free.length === 0) this.evict();
    const block = this.#free.pop();
    if (block === undefined) {
      throw new RangeError(`Cannot allocate a block: wanted 1 free or cached, all ${this.total} are owned`);
    }
    this.#references[block] = 1;
    this.#owned++;
    return block;
  }

  /** The block with the content `digest` names, owned or cached; undefined when there is none. Changes nothing. */
  find(digest: string): BlockId | undefined {
    return this.#index.get(digest);
  }

  /**
   * Adds a reference to a block that is owned or cached.
   *
   * @throws {RangeError} when the block is free.
   */
  share(block: BlockId): void {
    if (this.#references[block] === 0) {
      if (!this.#cached.has(block)) {
        throw new RangeError(`Cannot share block ${block}: wanted it owned or cached, it is free`);
      }
      this.#cached.remove(block);
      this.#owned++;
    }
    this.#references[block]++;
  }

  /**
   * Makes the content of an owned block findable. The content must not change any more. Where another block has the
   * same content, that one stays the one to find.
   *
   * @returns whether the block is now the one to find.
   * @throws {RangeError} when the block is not owned or was published under another digest.
   */
  publish(block: BlockId, digest: string): boolean {
    if (this.#references[block] === 0) {
      throw new RangeError(`Cannot publish block ${block}: wanted it owned, it has no reference`);
    }
    const known = this.#digests[block];
    if (known !== undefined && known !== digest) {
      throw new RangeError(`Cannot publish block ${block}: wanted digest ${known} again, got ${digest}`);
    }
    if (!this.#index.has(digest)) {
      this.#index.set(digest, block);
      this.#digests[block] = digest;
    }
    return this.#index.get(digest) === block;
  }

  /**
   * Drops one reference. The last one leaves the block cached when it was published, else free.
   *
   * @throws {RangeError} when the block has no reference.
   */
  release(block: BlockId): void {
    if (!(this.#references[block] > 0)) {
      throw new RangeError(`Cannot release block ${block}: wanted a reference, it has none`);
    }
    if (--this.#references[block] > 0) return;
    this.#owned--;
    if (this.#digests[block] === undefined) this.#discard(block);
    else this.#cached.push(block);
  }

  /** Frees the least recently used cached block. @returns whether there was one. */
  evict(): boolean {
    const oldest = this.#cached.oldest();
    if (oldest === undefined) return false;
    const block = oldest as BlockId;
    this.#cached.remove(block);
    this.#discard(block);
    return true;
  }

  /**
   * Checks every invariant, and where `tables` are given (all block tables there are), that the references are theirs.
   *
   * @throws {Error} with the arithmetic that does not hold.
   */
  checkIntegrity(tables?: Iterable<readonly BlockId[]>): void {
    const { free, owned, cached, total } = this.counts;
    if (free + owned + cached !== total) {
      throw new Error(`Block pool is broken: free ${free} + owned ${owned} + cached ${cached} != total ${total}`);
    }
    const seen = new Uint8Array(total);
    for (const block of [...this.#free, ...this.#cached]) {
      if (seen[block]++ > 0) throw new Error(`Block pool is broken: block ${block} is listed ${seen[block]} times`);
      if (this.#references[block] !== 0) {
        throw new Error(`Block pool is broken: unowned block ${block} has ${this.#references[block]} references`);
      }
      if (this.#cached.has(block) !== (this.#digests[block] !== undefined)) {
        throw new Error(`Block pool is broken: unowned block ${block} is cached or has a digest, not both`);
      }
    }
    const referenced = this.#references.reduce((sum, references) => sum + (references > 0 ? 1 : 0), 0);
    if (referenced !== owned) {
      throw new Error(`Block pool is broken: blocks with references ${referenced} != owned ${owned}`);
    }
    const digests = this.#digests.reduce((sum, digest) => sum + (digest === undefined ? 0 : 1), 0);
    if (digests !== this.#index.size) {
      throw new Error(`Block pool is broken: published blocks ${digests} != index entries ${this.#index.size}`);
    }
    for (const [digest, block] of this.#index) {
      if (this.#digests[block] !== digest) {
        throw new Error(
          `Block pool is broken: index names block ${block} for ${digest}, it has ${this.#digests[block]}`,
        );
      }
    }
    if (tables !== undefined) this.#checkReferences(tables);
  }

  #checkReferences(tables: Iterable<readonly BlockId[]>): void {
    const held = new Int32Array(this.total);
    for (const table of tables) for (const block of table) held[block]++;
    for (let block = 0; block < this.total; block++) {
      if (held[block] !== this.#references[block]) {
        throw new Error(
          `Block pool is broken: block ${block} is in ${held[block]} tables, it has ${
            this.#references[block]
          } references`,
        );
      }
    }
  }

  #discard(block: BlockId): void {
    const digest = this.#digests[block];
    if (digest !== undefined) this.#index.delete(digest);
    this.#digests[block] = undefined;
    this.#generations[block]++;
    this.#free.push(block);
  }
}
