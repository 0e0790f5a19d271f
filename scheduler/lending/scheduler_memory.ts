/**
 * The scheduler's memory as the cluster sees it, and as the scheduler uses it before each step.
 *
 * @module
 */
import type { BlockPool } from "../block_pool.ts";
import { BlockTables, type TableReferences } from "../block_tables.ts";
import type { Sequence } from "../sequence.ts";
import { type BorrowedSlot, slotKey } from "./borrowed.ts";
import { BorrowedSegments } from "./borrowed_segments.ts";
import type { ClusterMemory, HeldSegment, MemoryDemand, PlacedSequence, SegmentMove } from "./cluster_memory.ts";
import { MemoryDemands } from "./memory_demands.ts";
import { placementOf } from "./placement.ts";
import { Reservations } from "./reservations.ts";
import { Room } from "./room.ts";
import { SegmentMoves } from "./segment_moves.ts";

/** Makes a {@linkcode SchedulerMemory}. */
export interface SchedulerMemoryOptions {
  /** Blocks of this instance. */
  readonly pool: BlockPool;
  /** Tokens of one block. */
  readonly blockTokens: number;
  /** Tokens of one segment, a multiple of `blockTokens`. */
  readonly segmentTokens: number;
  /** Most tokens of one step. */
  readonly maxStepTokens: number;
  /** Whether content is looked for before blocks are filled. */
  readonly prefixCache: boolean;
  /** Tokens for which a sequence reserves room beyond those it has. */
  readonly growthTokens: number;
  /** Segments that could be borrowed now. */
  readonly reach: () => number;
  /** The same, once newcomers that fill gently go on to lend. */
  readonly soon: () => number;
  /** Segments that could be borrowed if nobody else had anything at those who lend. */
  readonly capacity: () => number;
  /** Whether there are no other members, now or later: then there is nothing to settle before a step. */
  readonly alone: boolean;
  /** Slots that nothing uses any more. */
  readonly onRelease: (slots: readonly BorrowedSlot[]) => void;
  /** Sequences that have tables. */
  readonly running: ReadonlySet<Sequence>;
  /** Sequences in the queue. */
  readonly waiting: ReadonlySet<Sequence>;
  /** Monotonic clock, ms. */
  readonly now: () => number;
}

/** What of a ranked queue can go on. */
export interface SettledRoom {
  /** Sequences that cannot compute a token now: they wait for an answer or for moves. */
  readonly blocked: ReadonlySet<Sequence>;
  /** Waiting sequences that are larger than everything there is to borrow and have been for too long. */
  readonly hopeless: readonly Sequence[];
}

const NOTHING_BLOCKED: SettledRoom = { blocked: new Set(), hopeless: [] };

/** See {@linkcode ClusterMemory}. */
export class SchedulerMemory implements ClusterMemory {
  /** Block tables. */
  readonly tables: BlockTables;
  readonly #options: SchedulerMemoryOptions;
  readonly #borrowed: BorrowedSegments;
  readonly #reservations = new Reservations();
  readonly #moves: SegmentMoves;
  readonly #demands: MemoryDemands;
  readonly #room: Room;
  readonly #pinned = new Set<Sequence>();
  /** Sequences that the step under way computes. */
  readonly #flying = new Set<Sequence>();
  /** What the tables of sequences referred to that ended during the step that computes them. */
  readonly #grounded: TableReferences[] = [];

  /** Nobody has anything yet. */
  constructor(options: SchedulerMemoryOptions) {
    const { pool, now, running } = options;
    const reservations = this.#reservations;
    const borrowed = new BorrowedSegments(options.onRelease);
    const demands = new MemoryDemands(now);
    const tables = new BlockTables({ ...options, borrowed });
    const isPinned = (sequence: Sequence) => this.#pinned.has(sequence);
    const moves = new SegmentMoves({ pool, borrowed, tables, reservations, running, isPinned, now });
    this.#options = options;
    this.#borrowed = borrowed;
    this.#demands = demands;
    this.tables = tables;
    this.#moves = moves;
    this.#room = new Room({ ...options, tables, borrowed, reservations, moves, demands });
  }

  /** Whether anything but local blocks is in play: else no sequence can be blocked. */
  get active(): boolean {
    const { lent, quarantined } = this.#options.pool.counts;
    return this.#borrows || lent + quarantined > 0;
  }

  get #borrows(): boolean {
    return this.#borrowed.size + this.#demands.size + this.#moves.size + this.#reservations.size > 0;
  }

  /** Tokens of the longest sequence that could run now. */
  get reachableTokens(): number {
    return this.#room.reachableTokens;
  }

  /** Tokens of the longest sequence that could run once all others have ended. */
  get mostTokens(): number {
    return this.#room.mostTokens;
  }

  /** See {@linkcode ClusterMemory.borrowedBlocks}. */
  get borrowedBlocks(): number {
    return this.#borrowed.used * this.tables.blocksPerSegment;
  }

  /** Blocks that nothing but moves holds. */
  get movingBlocks(): number {
    return new Set(this.#moves.held.blocks.flat()).size;
  }

  /** See {@linkcode ClusterMemory.demands}. */
  demands(): readonly MemoryDemand[] {
    return this.#demands.list();
  }

  /** See {@linkcode ClusterMemory.grant}. */
  grant(handle: number, slots: readonly BorrowedSlot[]): void {
    for (const slot of slots) this.#borrowed.hold(slot);
    const sequence = this.#live(handle);
    const demand = sequence && this.#demands.grant(sequence, slots.length);
    // A sequence that waits and does not ask must not keep others from what it cannot use.
    if (sequence === undefined || (sequence.status === "waiting" && demand === undefined)) {
      this.#borrowed.drop(slots);
      return;
    }
    const reservation = this.#reservations.add(sequence, slots);
    if (demand?.reason === "grow") {
      reservation.promised = Math.min(sequence.finalLength, this.#reservations.backed(sequence));
    }
  }

  /** See {@linkcode ClusterMemory.refuse}. */
  refuse(handle: number): void {
    const sequence = this.#live(handle);
    if (sequence === undefined || !this.#demands.refuse(sequence)) return;
    if (sequence.status === "waiting") this.#borrowed.drop(this.#reservations.take(sequence));
  }

  /** See {@linkcode ClusterMemory.nextMove}; those first that can compute nothing more without it. */
  nextMove(): SegmentMove | undefined {
    const movers = [...this.#reservations].filter(([{ status }, { unused }]) =>
      status === "running" && unused.length > 0
    ).map(([sequence]) => sequence);
    const urgency = (sequence: Sequence) => Number(this.#reservations.isStuck(sequence));
    movers.sort((a, b) => urgency(b) - urgency(a) || a.id - b.id);
    for (const sequence of movers) {
      const segment = this.#moves.movable(sequence);
      if (segment !== undefined) return this.#moves.moveOut(sequence, segment);
    }
    return undefined;
  }

  /** See {@linkcode ClusterMemory.relocate}. A slot that is not taken stays the caller's. */
  relocate(from: BorrowedSlot, to?: BorrowedSlot): SegmentMove | undefined {
    return this.#moves.relocate(from, to);
  }

  /** See {@linkcode ClusterMemory.finishMove}. */
  finishMove(id: number, verified: boolean): void {
    this.#moves.finish(id, verified);
  }

  /** See {@linkcode ClusterMemory.lose}. */
  lose(incarnation: string, leases?: ReadonlySet<number>): number {
    const lost = new Set(this.#borrowed.lose(incarnation, leases).map(slotKey));
    if (lost.size === 0) return 0;
    const isLost = (slot: BorrowedSlot) => lost.has(slotKey(slot));
    this.#moves.lose(isLost);
    this.#reservations.withdraw(isLost);
    const segments = new Set<string>();
    for (const sequence of this.#options.running) {
      for (const { segment, slot } of sequence.remoteBelow(Infinity).slots) {
        if (!isLost(slot)) continue;
        sequence.advance({ kind: "lose", segment });
        segments.add(slotKey(slot));
      }
      this.#reservations.settle(sequence);
    }
    return segments.size;
  }

  /** See {@linkcode ClusterMemory.giveBack}. */
  giveBack(incarnation: string, segments: number): number {
    const isTheirs = ({ creditor }: BorrowedSlot) => creditor.incarnation === incarnation;
    const slots = this.#reservations.withdraw(isTheirs, { most: segments });
    this.#borrowed.drop(slots);
    return slots.length;
  }

  /** See {@linkcode ClusterMemory.borrowed}. */
  borrowed(): ReadonlyMap<string, readonly BorrowedSlot[]> {
    return this.#borrowed.byIncarnation();
  }

  /** See {@linkcode ClusterMemory.held}. */
  held(incarnation: string): readonly HeldSegment[] {
    const held = new Map<string, HeldSegment>();
    for (const sequence of this.#options.running) {
      for (const { segment, slot } of sequence.remoteBelow(Infinity).slots) {
        if (slot.creditor.incarnation !== incarnation || held.has(slotKey(slot))) continue;
        held.set(slotKey(slot), {
          slot,
          sequence: sequence.id,
          segment,
          tokens: sequence.length,
          sharers: this.#borrowed.uses(slot),
          sinceMs: sequence.places.sinceMs(segment),
        });
      }
    }
    return [...held.values()];
  }

  /** See {@linkcode ClusterMemory.placements}. */
  placements(): readonly PlacedSequence[] {
    return [...this.#options.running].map((sequence) => placementOf(sequence, this.#pinned.has(sequence)));
  }

  /** See {@linkcode ClusterMemory.pin}. */
  pin(handle: number, pinned: boolean): boolean {
    const sequence = this.#live(handle);
    if (sequence === undefined) return false;
    if (pinned) this.#pinned.add(sequence);
    else this.#pinned.delete(sequence);
    return true;
  }

  /**
   * Finds room for what does not live on local blocks alone, in rank order, and asks for it where there is none. Who is
   * refused takes the blocks of the lowest rank through `preempt`, in the end its own.
   */
  settle(ranked: readonly Sequence[], options: { readonly preempt: (victim: Sequence) => void }): SettledRoom {
    if (this.#options.alone && !this.#borrows) return NOTHING_BLOCKED;
    const blocked = new Set<Sequence>();
    const running = ranked.filter(({ status }) => status === "running");
    for (const sequence of [...running]) {
      while (sequence.status === "running") {
        const found = this.#room.find(sequence);
        if (found === "ready") {
          this.#demands.drop(sequence);
          break;
        }
        if (found === "waits" || this.#waitsForAnswer(sequence)) {
          blocked.add(sequence);
          break;
        }
        this.#demands.drop(sequence);
        const victim = running.pop();
        if (victim === undefined) break;
        options.preempt(victim);
        blocked.delete(victim);
      }
    }
    const hopeless: Sequence[] = [];
    let asking = [...this.#options.waiting].some((sequence) => this.#demands.state(sequence) === "asked");
    for (const sequence of ranked) {
      if (sequence.status !== "waiting") continue;
      const need = this.#room.isPlain(sequence)
        ? undefined
        : this.#room.startNeed(sequence, this.#options.running.size);
      if (need === undefined || need.slots === 0) {
        this.#demands.drop(sequence);
        continue;
      }
      blocked.add(sequence);
      if (this.#demands.isHopeless(sequence, this.#room.isTooLarge(sequence))) hopeless.push(sequence);
      // One at a time: who is granted slots waits for local blocks with them. One that has some, no longer enough, asks
      // all the same: with a refusal it gives them back.
      const holds = this.#reservations.get(sequence) !== undefined;
      if (asking && !holds && this.#demands.state(sequence) === "none") continue;
      this.#demands.ask(sequence, { segments: need.slots, localSegments: need.localSegments, reason: "start" });
      asking ||= this.#demands.state(sequence) === "asked";
    }
    return { blocked, hopeless };
  }

  /** Whether a waiting sequence starts with all it knows on local blocks. */
  isPlain(sequence: Sequence): boolean {
    return this.#room.isPlain(sequence);
  }

  /** Blocks that leave the available ones when a sequence that is not blocked starts or goes on. */
  cost(sequence: Sequence): number {
    if (sequence.status === "running" || this.#room.isPlain(sequence)) return this.tables.cost(sequence);
    const { prefix, fresh } = this.#room.startNeed(sequence, 0);
    return fresh + prefix.revived;
  }

  /** Starts a waiting sequence that is not blocked when its blocks and `spare` more are available. */
  tryStart(sequence: Sequence, spare: number): boolean {
    if (this.#room.isPlain(sequence)) return this.tables.tryStart(sequence, { spare, atMs: this.#options.now() });
    const need = this.#room.startNeed(sequence, spare);
    this.#demands.drop(sequence);
    return need.slots === 0 && this.#room.tryStart(sequence, { need, spare });
  }

  /** A step with these sequences is under way: until {@linkcode endStep} everything it touches stays as it is. */
  beginStep(sequences: Iterable<Sequence>): void {
    for (const sequence of sequences) this.#flying.add(sequence);
    this.#moves.beginStep();
  }

  /** The step under way is over, whatever came of it: what only it touched is free. */
  endStep(): void {
    this.#flying.clear();
    for (const { blocks, slots } of this.#grounded.splice(0)) {
      this.tables.releaseBlocks(blocks);
      this.#borrowed.drop(slots);
    }
  }

  /** What the step computed is booked: moves that ended meanwhile change the tables now. */
  closeStep(): void {
    this.#moves.endStep();
  }

  /** Takes everything back that a sequence has; the caller advances it. What a step under way touches stays until its end. */
  release(sequence: Sequence): void {
    const references = this.tables.references(sequence);
    if (this.#flying.has(sequence)) {
      this.#borrowed.retire(references.slots);
      this.#grounded.push(references);
    } else this.tables.release(references);
    this.#borrowed.drop(this.#reservations.take(sequence));
    this.#demands.drop(sequence);
  }

  /** Forgets a sequence that has ended. */
  forget(sequence: Sequence): void {
    this.#demands.forget(sequence);
    this.#pinned.delete(sequence);
  }

  /** Checks all books against each other. @throws {Error} with the arithmetic that does not hold. */
  checkIntegrity(): void {
    const { pool, running, segmentTokens, blockTokens } = this.#options;
    for (const sequence of running) {
      const { id, computed, capacity, places } = sequence;
      for (const { segment } of sequence.remoteBelow(Infinity).slots) {
        if ((segment + 1) * segmentTokens > computed) {
          throw new Error(
            `Table is broken: sequence ${id} borrows segment ${segment} up to ${(segment + 1) * segmentTokens} > ` +
              `computed ${computed}`,
          );
        }
      }
      const covered = (sequence.localCount + places.withoutBlocks * this.tables.blocksPerSegment) * blockTokens;
      if (covered !== capacity || computed > capacity || sequence.localBlocks.length !== sequence.localCount) {
        throw new Error(
          `Table is broken: sequence ${id} has ${sequence.localCount} local blocks (listed ` +
            `${sequence.localBlocks.length}), ${places.withoutBlocks} segments elsewhere, capacity ${capacity}, ` +
            `computed ${computed}`,
        );
      }
    }
    const tables = [...running].map((sequence) => this.tables.references(sequence));
    const held = this.#moves.held;
    pool.checkIntegrity([
      ...[...tables, ...this.#grounded].map(({ blocks }) => blocks),
      ...held.blocks,
    ]);
    const known = (slots: readonly BorrowedSlot[]) => slots.filter((slot) => this.#borrowed.has(slot));
    this.#borrowed.checkIntegrity({
      tables: tables.flatMap(({ slots }) => slots),
      others: [
        ...known(this.#grounded.flatMap(({ slots }) => slots)),
        ...held.slots,
        ...[...this.#reservations].flatMap(([, { unused }]) => unused),
      ],
    });
    this.#reservations.checkIntegrity();
    this.#demands.checkIntegrity();
  }

  /** Whether a sequence that is short of room has asked for it, or asks now. */
  #waitsForAnswer(sequence: Sequence): boolean {
    switch (this.#demands.state(sequence)) {
      case "asked":
        return true;
      case "refused":
        return false;
      case "none":
        return this.#room.tryElsewhere(sequence);
    }
  }

  #live(handle: number): Sequence | undefined {
    for (const sequences of [this.#options.running, this.#options.waiting]) {
      for (const sequence of sequences) if (sequence.id === handle) return sequence;
    }
    return undefined;
  }
}
