/**
 * One lease as its creditor keeps it.
 *
 * @module
 */
import type { BlockId, BlockPool } from "../block_pool.ts";
import type { MemberIdentity } from "../protocol/member.ts";
import type { SlotRun } from "../protocol/messages.ts";

/** What a request wants with slots. */
export type SlotUse = "read" | "write" | "commit";

/** What a debtor asked for. */
export interface LeaseTerms {
  /** Lease, unique in the creditor's incarnation. */
  readonly lease: number;
  /** Stamp, see {@linkcode SlotRun}. */
  readonly stamp: number;
  /** Who borrows. */
  readonly debtor: MemberIdentity;
  /** The debtor's call. */
  readonly call: number;
  /** Sequence it is for. */
  readonly sequence: string;
  /** Epoch in which it was granted. */
  readonly epoch: number;
}

/** Where the content of a lease goes. */
export interface LeaseMemory {
  /** Pool that lent the blocks. */
  readonly pool: BlockPool;
  /** Whole segments, in order. */
  readonly blocks: readonly BlockId[];
  /** Blocks of one segment. */
  readonly blocksPerSegment: number;
}

const EMPTY = 0;
const FILLED = 1;
const FREED = 2;

/** Blocks and slots of a lease. A slot is empty, then filled, then freed; from then on it is never anything else. */
export class Lease {
  /** What it was granted for. */
  readonly terms: LeaseTerms;
  /** Slots it was granted with. */
  readonly segments: number;
  readonly #pool: BlockPool;
  readonly #blocks: readonly BlockId[];
  readonly #generations: readonly number[];
  readonly #slots: Uint8Array;
  readonly #blocksPerSegment: number;
  #live: number;
  #filled = 0;

  /** Makes a lease of blocks that the pool has just lent. */
  constructor(terms: LeaseTerms, memory: LeaseMemory) {
    this.terms = terms;
    this.#pool = memory.pool;
    this.#blocks = memory.blocks;
    this.#blocksPerSegment = memory.blocksPerSegment;
    this.#generations = memory.blocks.map((block) => memory.pool.generation(block));
    this.segments = memory.blocks.length / memory.blocksPerSegment;
    this.#slots = new Uint8Array(this.segments);
    this.#live = this.segments;
  }

  /** Slots that have not been freed. */
  get live(): number {
    return this.#live;
  }

  /** Live slots whose content was verified. */
  get filled(): number {
    return this.#filled;
  }

  /** All of it, as the debtor names it. */
  get run(): SlotRun {
    return { lease: this.terms.lease, stamp: this.terms.stamp, from: 0, count: this.segments };
  }

  /** Says why the slots of `run` may not be used like this; undefined when they may. */
  problem(run: SlotRun, use: SlotUse): string | undefined {
    if (!this.covers(run)) {
      return `wanted slots of the ${this.segments} of lease ${run.lease}, got ${run.count} from ${run.from}`;
    }
    for (let slot = run.from; slot < run.from + run.count; slot++) {
      const state = this.#slots[slot];
      if (state === FREED) return `wanted live slots, slot ${slot} of lease ${run.lease} is freed`;
      if (use === "read" && state !== FILLED) return `wanted filled slots, slot ${slot} of lease ${run.lease} is empty`;
      if (use === "write" && state !== EMPTY) return `wanted empty slots, slot ${slot} of lease ${run.lease} is filled`;
    }
    return undefined;
  }

  /** Whether `run` names slots that the lease was granted with, at least one. */
  covers({ from, count }: SlotRun): boolean {
    return Number.isInteger(from) && Number.isInteger(count) && from >= 0 && count >= 1 &&
      from + count <= this.segments;
  }

  /**
   * Blocks of the slots of `run`, in order; they must be live.
   *
   * @throws {Error} when the pool has given the content of one up meanwhile: an invariant is broken.
   */
  blocksOf({ from, count }: SlotRun): BlockId[] {
    const first = from * this.#blocksPerSegment;
    const end = (from + count) * this.#blocksPerSegment;
    for (let i = first; i < end; i++) this.#checkGeneration(i);
    return this.#blocks.slice(first, end);
  }

  /** Marks live slots as filled; those that are stay so. */
  fill({ from, count }: SlotRun): void {
    for (let slot = from; slot < from + count; slot++) {
      if (this.#slots[slot] === EMPTY) this.#filled++;
      this.#slots[slot] = FILLED;
    }
  }

  /** Frees the live ones among the slots of `run`. @returns their blocks. */
  free({ from, count }: SlotRun): BlockId[] {
    const blocks: BlockId[] = [];
    for (let slot = from; slot < from + count; slot++) {
      if (this.#slots[slot] === FREED) continue;
      if (this.#slots[slot] === FILLED) this.#filled--;
      this.#slots[slot] = FREED;
      this.#live--;
      blocks.push(...this.#blocks.slice(slot * this.#blocksPerSegment, (slot + 1) * this.#blocksPerSegment));
    }
    return blocks;
  }

  /** Blocks of the live slots. */
  liveBlocks(): BlockId[] {
    return this.#blocks.filter((_, i) => this.#slots[Math.floor(i / this.#blocksPerSegment)] !== FREED);
  }

  /**
   * Checks slots, blocks and generations against the pool.
   *
   * @throws {Error} with what does not hold.
   */
  checkIntegrity(): void {
    const live = this.#slots.filter((slot) => slot !== FREED).length;
    const filled = this.#slots.filter((slot) => slot === FILLED).length;
    if (live !== this.#live || filled !== this.#filled || live === 0) {
      throw new Error(
        `Lease ${this.terms.lease} is broken: live ${live}, counted ${this.#live}; filled ${filled}, counted ${this.#filled}`,
      );
    }
    for (let i = 0; i < this.#blocks.length; i++) {
      if (this.#slots[Math.floor(i / this.#blocksPerSegment)] === FREED) continue;
      this.#checkGeneration(i);
      if (this.#pool.state(this.#blocks[i]) !== "lent") {
        throw new Error(
          `Lease ${this.terms.lease} is broken: its block ${this.#blocks[i]} is ${this.#pool.state(this.#blocks[i])}`,
        );
      }
    }
  }

  #checkGeneration(index: number): void {
    const block = this.#blocks[index];
    const generation = this.#pool.generation(block);
    if (generation !== this.#generations[index]) {
      throw new Error(
        `Lease ${this.terms.lease} is broken: wanted block ${block} of generation ${
          this.#generations[index]
        }, it is of ${generation}`,
      );
    }
  }
}

/** Whether two identities are the same run of the same member. */
export function sameMember(a: MemberIdentity, b: MemberIdentity): boolean {
  return a.incarnation === b.incarnation && a.name === b.name;
}
