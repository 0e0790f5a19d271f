/**
 * What the part that talks to other members sees of the scheduler's memory, and what it may do to it. Everything is
 * counted in whole segments. Methods are called between steps, or while a step waits for partials: they never touch a
 * block that a running step reads or writes.
 *
 * @module
 */
import type { BlockId } from "../block_pool.ts";
import type { BorrowedSlot } from "./borrowed.ts";

/** A sequence that cannot go on with the blocks of this instance. */
export interface MemoryDemand {
  /** Handle of the sequence. */
  readonly sequence: number;
  /** Segments to borrow. */
  readonly segments: number;
  /** Tokens known. */
  readonly tokens: number;
  /** Most tokens it will have. */
  readonly maxTokens: number;
  /** Segments that stay here. */
  readonly localSegments: number;
  /** `start`: it waits in the queue; `grow`: it runs and its next token has no room; `repair`: lost segments have none. */
  readonly reason: "start" | "grow" | "repair";
}

/** One segment on its way from here to a slot, or from a slot to here or to another slot. */
export interface SegmentMove {
  /** Unique handle of the move. */
  readonly id: number;
  /** Handle of a sequence that has the segment; others may share it. */
  readonly sequence: number;
  /** The segment. */
  readonly segment: number;
  /** Where its bytes are: blocks of this pool, in order, or a slot. They stay as they are until the move ends. */
  readonly from: { readonly kind: "local"; readonly blocks: readonly BlockId[] } | {
    readonly kind: "slot";
    readonly slot: BorrowedSlot;
  };
  /** Where they go. */
  readonly to: { readonly kind: "local"; readonly blocks: readonly BlockId[] } | {
    readonly kind: "slot";
    readonly slot: BorrowedSlot;
  };
}

/** Where a run of segments of a sequence lies. */
export interface PlacedRange {
  /** First segment. */
  readonly from: number;
  /** One past the last. */
  readonly to: number;
  /** Member that holds it; undefined for this instance. */
  readonly creditor?: string;
  /** Blocks. */
  readonly blocks: number;
  /** Time since which it lies there, ms on the scheduler's clock. */
  readonly sinceMs: number;
}

/** A borrowed segment that holds keys and values. */
export interface HeldSegment {
  /** Where it lies. */
  readonly slot: BorrowedSlot;
  /** Handle of a sequence that has it. */
  readonly sequence: number;
  /** The segment. */
  readonly segment: number;
  /** Tokens of that sequence. */
  readonly tokens: number;
  /** Sequences that share it. */
  readonly sharers: number;
  /** Time since which it lies there, ms on the scheduler's clock. */
  readonly sinceMs: number;
}

/** A sequence as the cluster sees it. */
export interface PlacedSequence {
  /** Handle. */
  readonly sequence: number;
  /** Tokens known. */
  readonly length: number;
  /** Whether it runs. */
  readonly running: boolean;
  /** Where its KV lies, ascending; lost and not yet computed segments are left out. */
  readonly ranges: readonly PlacedRange[];
  /** Whether an operator pinned it. */
  readonly pinned: boolean;
}

/** The scheduler's memory. */
export interface ClusterMemory {
  /** Sequences that need room elsewhere now and have no answer yet, most urgent first. */
  demands(): readonly MemoryDemand[];
  /**
   * Gives a sequence room for whole segments; it counts from now on. The lowest full local segments go there as they
   * become full, see {@linkcode nextMove}. Slots for a sequence that has ended come back through `onRelease` at once.
   */
  grant(sequence: number, slots: readonly BorrowedSlot[]): void;
  /**
   * Says that nobody lends for this demand now. A sequence that waits keeps waiting and asks again after a while; one that
   * runs is preempted, or preempts another.
   */
  refuse(sequence: number): void;
  /**
   * The next segment that has become full and has a slot to go to, if there is one. Its blocks are held until
   * {@linkcode finishMove}.
   */
  nextMove(): SegmentMove | undefined;
  /**
   * Starts bringing a borrowed segment to a slot elsewhere, or home when no slot is given.
   *
   * @returns undefined when the slot is not in use any more, is on its way already, or there is no local room.
   */
  relocate(from: BorrowedSlot, to?: BorrowedSlot): SegmentMove | undefined;
  /**
   * Ends a move: where the copy was verified, every sequence that has the segment uses the new place from the next step
   * on and the old place is given back; else the new place is given back. Whatever became of the sequences meanwhile.
   */
  finishMove(id: number, verified: boolean): void;
  /**
   * A creditor's slots are gone, all of an incarnation's or those of some leases. Sequences that have segments there
   * compute them again before they go on; moves that concern them have failed (do not finish them).
   *
   * @returns segments that live sequences lost.
   */
  lose(incarnation: string, leases?: ReadonlySet<number>): number;
  /**
   * Gives up to `segments` slots of a creditor back that are reserved and that nothing was moved to, through `onRelease`;
   * a recall that this fulfils moves nothing. Sequences that counted on them ask again when they need them.
   *
   * @returns how many.
   */
  giveBack(incarnation: string, segments: number): number;
  /** Slots in use or reserved, by creditor incarnation. */
  borrowed(): ReadonlyMap<string, readonly BorrowedSlot[]>;
  /** Borrowed segments that hold keys and values, those on their way included, by creditor incarnation. */
  held(incarnation: string): readonly HeldSegment[];
  /** Blocks that the tables of sequences have at others. */
  readonly borrowedBlocks: number;
  /** Every live sequence with KV. */
  placements(): readonly PlacedSequence[];
  /** Keeps a sequence where it is, or lets it go. @returns whether it is live. */
  pin(sequence: number, pinned: boolean): boolean;
}
