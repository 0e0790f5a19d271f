/**
 * The books between sequences, the block pool and the slots at other members: who gets which blocks, found in the prefix
 * cache or fresh, and what comes back.
 *
 * @module
 */
import type { BlockId, BlockPool } from "./block_pool.ts";
import type { BorrowedSlot } from "./lending/borrowed.ts";
import type { BorrowedSegments } from "./lending/borrowed_segments.ts";
import { FILLER, type Sequence } from "./sequence.ts";

/** Makes {@linkcode BlockTables}. */
export interface BlockTablesOptions {
  /** Blocks of this instance. */
  readonly pool: BlockPool;
  /** Slots at other members. */
  readonly borrowed: BorrowedSegments;
  /** Tokens of one block. */
  readonly blockTokens: number;
  /** Tokens of one segment, a multiple of `blockTokens`. */
  readonly segmentTokens: number;
  /** Whether content is looked for before blocks are filled; without it every block is fresh. */
  readonly prefixCache: boolean;
}

/** The longest prefix of a sequence whose KV is there already. */
export interface FoundPrefix {
  /** Beginning of a block table, with {@linkcode FILLER} at places of borrowed segments. */
  readonly blocks: readonly BlockId[];
  /** Those of its blocks that are local. */
  readonly local: readonly BlockId[];
  /** Those of its segments that lie elsewhere. */
  readonly borrowed: ReadonlyMap<number, BorrowedSlot>;
  /** Local blocks that leave the available ones when they are shared. */
  readonly revived: number;
}

/** What one block table refers to. */
export interface TableReferences {
  /** Blocks of this instance. */
  readonly blocks: readonly BlockId[];
  /** Slots at other members. */
  readonly slots: readonly BorrowedSlot[];
}

/** Fills and empties the block tables of sequences. */
export class BlockTables {
  /** Tokens of one block. */
  readonly blockTokens: number;
  /** Blocks of one segment. */
  readonly blocksPerSegment: number;
  readonly #pool: BlockPool;
  readonly #borrowed: BorrowedSegments;
  readonly #prefixCache: boolean;
  #prefixQueries = 0;
  #prefixHits = 0;

  /** Works on a pool and on slots. */
  constructor(options: BlockTablesOptions) {
    this.#pool = options.pool;
    this.#borrowed = options.borrowed;
    this.blockTokens = options.blockTokens;
    this.blocksPerSegment = options.segmentTokens / options.blockTokens;
    this.#prefixCache = options.prefixCache;
  }

  /** Prompt tokens looked up in the prefix cache. */
  get prefixQueries(): number {
    return this.#prefixQueries;
  }

  /** Prompt tokens found in the prefix cache. */
  get prefixHits(): number {
    return this.#prefixHits;
  }

  /** Blocks that `tokens` tokens take. */
  blocksFor(tokens: number): number {
    return Math.ceil(tokens / this.blockTokens);
  }

  /** Blocks that leave the available ones when the sequence starts with all it knows, or goes on. */
  cost(sequence: Sequence): number {
    if (sequence.status === "running") return this.#missing(sequence);
    const prefix = this.findPrefix(sequence);
    return this.blocksFor(sequence.length) - prefix.blocks.length + prefix.revived;
  }

  /** Starts a waiting sequence with all it knows when its blocks and `spare` more are available. @returns whether it started. */
  tryStart(sequence: Sequence, options: { readonly spare: number; readonly atMs: number }): boolean {
    const prefix = this.findPrefix(sequence);
    const fresh = this.blocksFor(sequence.length) - prefix.blocks.length;
    return this.tryStartFrom(sequence, { ...options, prefix, fresh });
  }

  /** Starts a waiting sequence with a prefix and `fresh` more blocks when they and `spare` more are available. */
  tryStartFrom(sequence: Sequence, options: {
    readonly prefix: FoundPrefix;
    readonly fresh: number;
    readonly spare: number;
    readonly atMs: number;
  }): boolean {
    const { prefix, fresh, spare, atMs } = options;
    if (fresh + prefix.revived + spare > this.#pool.available) return false;
    const cachedTokens = prefix.blocks.length * this.blockTokens;
    if (sequence.cachedTokens === undefined && this.#prefixCache) {
      this.#prefixQueries += sequence.prompt.length;
      this.#prefixHits += Math.min(cachedTokens, sequence.prompt.length);
    }
    // Before anything is allocated: allocating may evict what was found.
    for (const block of prefix.local) this.#pool.share(block);
    for (const [segment, slot] of prefix.borrowed) this.#borrowed.use(slot, this.segmentDigest(sequence, segment));
    const blocks = [...prefix.blocks];
    for (let i = 0; i < fresh; i++) blocks.push(this.#pool.allocate());
    sequence.advance({ kind: "start", blocks, borrowed: prefix.borrowed, cachedTokens, atMs });
    return true;
  }

  /** Gives a running sequence the blocks it needs to go on. @returns false when there are not enough. */
  tryGrow(sequence: Sequence): boolean {
    const missing = this.#missing(sequence);
    if (missing > this.#pool.available) return false;
    this.extend(sequence, missing);
    return true;
  }

  /** Gives a running sequence blocks for `tokens` tokens. @returns false when there are not enough. */
  tryReserve(sequence: Sequence, tokens: number): boolean {
    const missing = this.blocksFor(tokens) - sequence.blocks.length;
    if (missing > this.#pool.available) return false;
    this.extend(sequence, missing);
    return true;
  }

  /** Adds up to `count` blocks to the table of a running sequence, as many as are available. */
  extend(sequence: Sequence, count: number): void {
    for (let i = Math.min(count, this.#pool.available); i > 0; i--) {
      sequence.advance({ kind: "grow", block: this.#pool.allocate() });
    }
  }

  /** Makes the blocks of a sequence findable that became full when `from` tokens became `to`. */
  publish(sequence: Sequence, { from, to }: { readonly from: number; readonly to: number }): void {
    if (!this.#prefixCache) return;
    const full = Math.floor(to / this.blockTokens);
    for (let i = Math.floor(from / this.blockTokens); i < full; i++) {
      this.#pool.publish(sequence.blocks[i], sequence.blockDigest(i));
    }
  }

  /** Name of a segment's content, where it may be shared. */
  segmentDigest(sequence: Sequence, segment: number): string | undefined {
    return this.#prefixCache ? sequence.segmentDigest(segment) : undefined;
  }

  /**
   * Gives a lost segment blocks again: those with its content as far as the pool still has them, else fresh ones, else
   * unused ones off the end of its own table. Where a live sequence has the content elsewhere, it is borrowed instead.
   *
   * @returns false when there are not enough.
   */
  tryMend(sequence: Sequence, segment: number, atMs: number): boolean {
    const digest = this.segmentDigest(sequence, segment);
    const slot = digest === undefined ? undefined : this.#borrowed.find(digest);
    if (slot !== undefined) {
      this.#borrowed.use(slot, digest);
      sequence.advance({ kind: "away", segment, slot, atMs });
      return true;
    }
    const first = segment * this.blocksPerSegment;
    const found = this.#findBlocks(sequence, { from: first, to: first + this.blocksPerSegment });
    const fresh = this.blocksPerSegment - found.length;
    if (fresh + this.#revived(found) <= this.#pool.available) {
      for (const block of found) this.#pool.share(block);
      const blocks = [...found, ...Array.from({ length: fresh }, () => this.#pool.allocate())];
      sequence.advance({ kind: "home", segment, blocks, done: found.length * this.blockTokens, atMs });
      return true;
    }
    if (sequence.spareBlocks < this.blocksPerSegment) return false;
    const blocks = sequence.blocks.slice(-this.blocksPerSegment);
    sequence.advance({ kind: "shrink", blocks: blocks.length });
    sequence.advance({ kind: "home", segment, blocks, done: 0, atMs });
    return true;
  }

  /** Points a sequence's segment, local or at another slot, at a slot, and gives the old place back. */
  sendAway(sequence: Sequence, { segment, slot, atMs }: { segment: number; slot: BorrowedSlot; atMs: number }): void {
    const place = sequence.places.at(segment);
    const blocks = place === undefined ? sequence.segmentBlocks(segment) : [];
    this.#borrowed.use(slot, this.segmentDigest(sequence, segment));
    sequence.advance({ kind: "away", segment, slot, atMs });
    this.releaseBlocks(blocks);
    if (place?.kind === "borrowed") this.#borrowed.dropUses([place.slot]);
  }

  /** Points a sequence's borrowed segment at local blocks that hold its content, and gives the slot back. */
  bringHome(
    sequence: Sequence,
    { segment, blocks, atMs }: { segment: number; blocks: readonly BlockId[]; atMs: number },
  ): void {
    const place = sequence.places.at(segment);
    const { segmentTokens } = sequence;
    for (const block of blocks) this.#pool.share(block);
    sequence.advance({ kind: "home", segment, blocks, done: segmentTokens, atMs });
    this.publish(sequence, { from: segment * segmentTokens, to: (segment + 1) * segmentTokens });
    if (place?.kind === "borrowed") this.#borrowed.dropUses([place.slot]);
  }

  /** What the table of a sequence refers to. */
  references(sequence: Sequence): TableReferences {
    return { blocks: sequence.localBlocks, slots: sequence.remoteBelow(Infinity).slots.map(({ slot }) => slot) };
  }

  /** Gives everything back that a table refers to; the caller advances the sequence. */
  release({ blocks, slots }: TableReferences): void {
    this.releaseBlocks(blocks);
    if (slots.length > 0) this.#borrowed.dropUses(slots);
  }

  /** Gives blocks back. */
  releaseBlocks(blocks: readonly BlockId[]): void {
    // Last block first: the start of a prefix is worth most and is evicted last.
    for (let i = blocks.length - 1; i >= 0; i--) this.#pool.release(blocks[i]);
  }

  /**
   * The longest prefix that the sequence may share, block by block where it is local and in whole segments where it is
   * borrowed; with at most `mostLocal` local blocks.
   */
  findPrefix(sequence: Sequence, { mostLocal = Infinity }: { readonly mostLocal?: number } = {}): FoundPrefix {
    const blocks: BlockId[] = [];
    const local: BlockId[] = [];
    const borrowed = new Map<number, BorrowedSlot>();
    const most = this.#prefixCache ? Math.floor(sequence.sharable / this.blockTokens) : 0;
    for (let segment = 0; blocks.length < most; segment++) {
      const from = segment * this.blocksPerSegment;
      const to = from + this.blocksPerSegment;
      const found = this.#findBlocks(sequence, { from, to: Math.min(to, most, from + mostLocal - local.length) });
      if (found.length < this.blocksPerSegment && this.#borrowed.used > 0 && to <= most) {
        const slot = this.#borrowed.find(sequence.segmentDigest(segment));
        if (slot !== undefined) {
          borrowed.set(segment, slot);
          for (let i = from; i < to; i++) blocks.push(FILLER);
          continue;
        }
      }
      blocks.push(...found);
      local.push(...found);
      if (found.length < this.blocksPerSegment) break;
    }
    return { blocks, local, borrowed, revived: this.#revived(local) };
  }

  /** Blocks [from, to) of a sequence whose content the pool has, up to the first it has not. */
  #findBlocks(sequence: Sequence, { from, to }: { readonly from: number; readonly to: number }): BlockId[] {
    const blocks: BlockId[] = [];
    if (!this.#prefixCache) return blocks;
    for (let i = from; i < to; i++) {
      const block = this.#pool.find(sequence.blockDigest(i));
      if (block === undefined) break;
      blocks.push(block);
    }
    return blocks;
  }

  #revived(blocks: readonly BlockId[]): number {
    return blocks.reduce((sum, block) => sum + (this.#pool.references(block) === 0 ? 1 : 0), 0);
  }

  /** Blocks that a running sequence needs to go on: a decode needs one for its token, a prefill has what it has. */
  #missing(sequence: Sequence): number {
    return sequence.decoding ? Math.max(0, this.blocksFor(sequence.length) - sequence.blocks.length) : 0;
  }
}
