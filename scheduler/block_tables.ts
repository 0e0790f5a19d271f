/**
 * The books between sequences and the block pool: who gets which blocks, found in the prefix cache or fresh.
 *
 * @module
 */
import type { BlockId, BlockPool } from "./block_pool.ts";
import type { Sequence } from "./sequence.ts";

/** Fills and empties the block tables of sequences. */
export class BlockTables {
  /** Tokens of one block. */
  readonly blockTokens: number;
  readonly #pool: BlockPool;
  readonly #prefixCache: boolean;
  #prefixQueries = 0;
  #prefixHits = 0;

  /** Works on `pool`; without `prefixCache` every block is fresh. */
  constructor(pool: BlockPool, options: { readonly blockTokens: number; readonly prefixCache: boolean }) {
    this.#pool = pool;
    this.blockTokens = options.blockTokens;
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

  /** Blocks that leave the available ones when the sequence starts, or goes on with all it knows. */
  cost(sequence: Sequence): number {
    if (sequence.status === "running") return this.blocksFor(sequence.length) - sequence.blocks.length;
    return this.#startCost(sequence, this.#cachedPrefix(sequence));
  }

  /** Starts a waiting sequence when its blocks and `spare` more are available. @returns whether it started. */
  tryStart(sequence: Sequence, options: { readonly spare: number; readonly atMs: number }): boolean {
    const blocks = this.#cachedPrefix(sequence);
    if (this.#startCost(sequence, blocks) + options.spare > this.#pool.available) return false;
    const cachedTokens = blocks.length * this.blockTokens;
    if (sequence.cachedTokens === undefined && this.#prefixCache) {
      this.#prefixQueries += sequence.prompt.length;
      this.#prefixHits += cachedTokens;
    }
    // Before anything is allocated: allocating may evict what was found.
    for (const block of blocks) this.#pool.share(block);
    for (let i = this.blocksFor(sequence.length) - blocks.length; i > 0; i--) blocks.push(this.#pool.allocate());
    sequence.advance({ kind: "start", blocks, cachedTokens, atMs: options.atMs });
    return true;
  }

  /** Gives a running sequence blocks for all it knows. @returns false when there are not enough. */
  tryGrow(sequence: Sequence): boolean {
    const missing = this.cost(sequence);
    if (missing > this.#pool.available) return false;
    for (let i = 0; i < missing; i++) sequence.advance({ kind: "grow", block: this.#pool.allocate() });
    return true;
  }

  /** Makes the blocks of a sequence findable that became full since `before` tokens were computed. */
  publish(sequence: Sequence, before: number): void {
    if (!this.#prefixCache) return;
    const full = Math.floor(sequence.computed / this.blockTokens);
    for (let i = Math.floor(before / this.blockTokens); i < full; i++) {
      this.#pool.publish(sequence.blocks[i], sequence.blockDigest(i));
    }
  }

  /** Gives the blocks of a table back. */
  release(blocks: readonly BlockId[]): void {
    // Last block first: the start of a prefix is worth most and is evicted last.
    for (let i = blocks.length - 1; i >= 0; i--) this.#pool.release(blocks[i]);
  }

  #startCost(sequence: Sequence, cached: readonly BlockId[]): number {
    const revived = cached.filter((block) => this.#pool.references(block) === 0).length;
    return this.blocksFor(sequence.length) - cached.length + revived;
  }

  /** Blocks of the longest prefix in the cache that the sequence may share. */
  #cachedPrefix(sequence: Sequence): BlockId[] {
    const blocks: BlockId[] = [];
    const most = this.#prefixCache ? Math.floor(sequence.sharable / this.blockTokens) : 0;
    while (blocks.length < most) {
      const block = this.#pool.find(sequence.blockDigest(blocks.length));
      if (block === undefined) break;
      blocks.push(block);
    }
    return blocks;
  }
}
