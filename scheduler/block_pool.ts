/**
 * Who holds which KV block. Integers only: the pool knows neither tokens nor time nor a device.
 *
 * A block is *free* (no content), *owned* (one reference or more), *cached* (no reference, content findable by its
 * digest, given away in least-recently-used order), *lent* (somebody else's content) or *quarantined* (lent before; its
 * content is given up, but work in flight might still touch it). free + owned + cached + lent + quarantined = total,
 * always.
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
  /** Blocks that hold somebody else's content. */
  readonly lent: number;
  /** Blocks given back that work in flight might still touch. */
  readonly quarantined: number;
}

/** What a block is to its pool. */
export type BlockState = "free" | "owned" | "cached" | "lent" | "quarantined";

/** Where a block without a reference is when it is neither free nor cached. */
const HERE = 0;
const LENT = 1;
const QUARANTINED = 2;

/** Block ids, reference counts, and the index of the prefix cache. */
export class BlockPool {
  /** Blocks in all. */
  readonly total: number;
  readonly #references: Int32Array;
  readonly #generations: Uint32Array;
  readonly #digests: (string | undefined)[];
  /** `HERE`, `LENT` or `QUARANTINED`, by block. */
  readonly #away: Uint8Array;
  readonly #index = new Map<string, BlockId>();
  readonly #free: BlockId[];
  readonly #cached: LruList;
  #owned = 0;
  #lent = 0;
  #quarantined = 0;

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
    this.#away = new Uint8Array(total);
    this.#digests = new Array<string | undefined>(total).fill(undefined);
    this.#free = Array.from({ length: total }, (_, i) => (total - 1 - i) as BlockId);
    this.#cached = new LruList(total);
  }

  /** Current counts. */
  get counts(): BlockCounts {
    return {
      total: this.total,
      free: this.#free.length,
      owned: this.#owned,
      cached: this.#cached.size,
      lent: this.#lent,
      quarantined: this.#quarantined,
    };
  }

  /** Blocks that {@linkcode allocate} and {@linkcode lend} can hand out: free ones, and cached ones that it would evict. */
  get available(): number {
    return this.#free.length + this.#cached.size;
  }

  /** References to `block`. */
  references(block: BlockId): number {
    return this.#references[block];
  }

  /**
   * What `block` is now.
   *
   * @throws {RangeError} when it is outside the pool.
   */
  state(block: BlockId): BlockState {
    const state = this.#stateOf(block);
    if (state === "outside the pool") {
      throw new RangeError(`Cannot look at block ${block}: wanted 0 to ${this.total - 1}`);
    }
    return state;
  }

  /** Number of times the content of `block` was given up; with the id it names one content. */
  generation(block: BlockId): number {
    return this.#generations[block];
  }

  /**
   * Takes a block without content, with one reference. Evicts the least recently used cached block when none is free.
   *
   * @throws {RangeError} when every block is owned, lent or quarantined.
   */
  allocate(): BlockId {
    if (this.#free.length === 0) this.evict();
    const block = this.#free.pop();
    if (block === undefined) {
      throw new RangeError(`Cannot allocate a block: wanted 1 free or cached, all ${this.total} are ${this.#taken()}`);
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
   * @throws {RangeError} when the block is free, lent or quarantined.
   */
  share(block: BlockId): void {
    if (this.#references[block] === 0) {
      if (!this.#cached.has(block)) {
        throw new RangeError(`Cannot share block ${block}: wanted it owned or cached, it is ${this.#stateOf(block)}`);
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

  /**
   * Takes `count` blocks for somebody else's content: free ones first, then the least recently used cached ones, which
   * are evicted. Blocks that were settled together come out together, in ascending order.
   *
   * @throws {RangeError} when `count` is not a whole number or fewer are available; then nothing has changed.
   */
  lend(count: number): BlockId[] {
    if (!Number.isInteger(count) || count < 0 || count > this.available) {
      throw new RangeError(`Cannot lend ${count} blocks: wanted 0 to ${this.available}, the free and cached ones`);
    }
    while (this.#free.length < count) this.evict();
    const blocks = this.#free.splice(this.#free.length - count).sort((a, b) => a - b);
    for (const block of blocks) this.#away[block] = LENT;
    this.#lent += count;
    return blocks;
  }

  /**
   * Gives the content of lent blocks up. Nobody gets them before {@linkcode settle}.
   *
   * @throws {RangeError} when one is not lent or named twice; then nothing has changed.
   */
  quarantine(blocks: readonly BlockId[]): void {
    this.#move(blocks, { action: "quarantine", from: LENT, to: QUARANTINED });
    for (const block of blocks) this.#generations[block]++;
    this.#lent -= blocks.length;
    this.#quarantined += blocks.length;
  }

  /**
   * Frees quarantined blocks that nothing in flight can touch any more.
   *
   * @throws {RangeError} when one is not quarantined or named twice; then nothing has changed.
   */
  settle(blocks: readonly BlockId[]): void {
    this.#move(blocks, { action: "settle", from: QUARANTINED, to: HERE });
    // The list is a stack: what goes on it descending comes off it ascending.
    for (const block of blocks.toSorted((a, b) => b - a)) this.#free.push(block);
    this.#quarantined -= blocks.length;
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
    const { free, owned, cached, lent, quarantined, total } = this.counts;
    if (free + owned + cached + lent + quarantined !== total) {
      throw new Error(
        `Block pool is broken: free ${free} + owned ${owned} + cached ${cached} + lent ${lent} + quarantined ${quarantined} != total ${total}`,
      );
    }
    this.#checkAway({ lent, quarantined });
    const seen = new Uint8Array(total);
    for (const block of [...this.#free, ...this.#cached]) {
      if (seen[block]++ > 0) throw new Error(`Block pool is broken: block ${block} is listed ${seen[block]} times`);
      if (this.#references[block] !== 0) {
        throw new Error(`Block pool is broken: unowned block ${block} has ${this.#references[block]} references`);
      }
      if (this.#away[block] !== HERE) {
        throw new Error(`Block pool is broken: free or cached block ${block} is ${this.#stateOf(block)}`);
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

  #checkAway(counts: { readonly lent: number; readonly quarantined: number }): void {
    const seen = { lent: 0, quarantined: 0 };
    for (let block = 0; block < this.total; block++) {
      if (this.#away[block] === HERE) continue;
      seen[this.#away[block] === LENT ? "lent" : "quarantined"]++;
      if (this.#references[block] !== 0 || this.#digests[block] !== undefined) {
        throw new Error(
          `Block pool is broken: block ${block} is ${this.#stateOf(block)} and has ${
            this.#references[block]
          } references, digest ${this.#digests[block]}`,
        );
      }
    }
    if (seen.lent !== counts.lent || seen.quarantined !== counts.quarantined) {
      throw new Error(
        `Block pool is broken: marked lent ${seen.lent} and quarantined ${seen.quarantined}, counted ${counts.lent} and ${counts.quarantined}`,
      );
    }
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

  #move(
    blocks: readonly BlockId[],
    options: { readonly action: string; readonly from: number; readonly to: number },
  ): void {
    const { action, from, to } = options;
    const wanted = from === LENT ? "lent" : "quarantined";
    const wrong = blocks.find((block) => this.#away[block] !== from);
    if (wrong !== undefined) {
      throw new RangeError(`Cannot ${action} block ${wrong}: wanted it ${wanted}, it is ${this.#stateOf(wrong)}`);
    }
    if (new Set(blocks).size !== blocks.length) {
      throw new RangeError(`Cannot ${action} blocks ${blocks.join(", ")}: wanted each once`);
    }
    for (const block of blocks) this.#away[block] = to;
  }

  #stateOf(block: number): BlockState | "outside the pool" {
    if (!(block in this.#references)) return "outside the pool";
    if (this.#away[block] !== HERE) return this.#away[block] === LENT ? "lent" : "quarantined";
    if (this.#references[block] > 0) return "owned";
    return this.#cached.has(block) ? "cached" : "free";
  }

  /** How every block is taken, for messages. */
  #taken(): string {
    const states = [["owned", this.#owned], ["lent", this.#lent], ["quarantined", this.#quarantined]] as const;
    return states.filter(([, count]) => count > 0).map(([state]) => state).join(" or ");
  }

  #discard(block: BlockId): void {
    const digest = this.#digests[block];
    if (digest !== undefined) this.#index.delete(digest);
    this.#digests[block] = undefined;
    this.#generations[block]++;
    this.#free.push(block);
  }
}
