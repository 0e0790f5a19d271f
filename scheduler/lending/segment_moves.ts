/**
 * Segments on their way between local blocks and slots.
 *
 * A move holds what it copies from and what it copies to until it ends, whatever becomes of the sequences meanwhile: so
 * preemption, cancellation, and the loss of either side leave the other one whole. Tables change only when a verified move
 * ends, and never during a step.
 *
 * @module
 */
import type { BlockId, BlockPool } from "../block_pool.ts";
import type { BlockTables } from "../block_tables.ts";
import type { Sequence } from "../sequence.ts";
import { type BorrowedSlot, slotKey } from "./borrowed.ts";
import type { BorrowedSegments } from "./borrowed_segments.ts";
import type { SegmentMove } from "./cluster_memory.ts";
import type { Reservation, Reservations } from "./reservations.ts";

/** Makes {@linkcode SegmentMoves}. */
export interface SegmentMovesOptions {
  /** Blocks of this instance. */
  readonly pool: BlockPool;
  /** Slots at other members. */
  readonly borrowed: BorrowedSegments;
  /** Block tables. */
  readonly tables: BlockTables;
  /** What was granted. */
  readonly reservations: Reservations;
  /** Sequences that have tables. */
  readonly running: ReadonlySet<Sequence>;
  /** Whether the segments of a sequence stay where they are. */
  readonly isPinned: (sequence: Sequence) => boolean;
  /** Monotonic clock, ms. */
  readonly now: () => number;
}

type End = SegmentMove["from"];

interface ActiveMove {
  readonly move: SegmentMove;
  /** Whose slot it goes to; absent for moves between or from slots. */
  readonly reserved?: { readonly sequence: Sequence; readonly reservation: Reservation };
}

/** Moves under way. */
export class SegmentMoves {
  readonly #options: SegmentMovesOptions;
  readonly #active = new Map<number, ActiveMove>();
  /** Sources of moves: slot keys, and the first block of local segments. */
  readonly #sources = new Set<string | BlockId>();
  readonly #ended: { readonly id: number; readonly verified: boolean }[] = [];
  #lastId = 0;
  #stepUnderWay = false;

  /** Starts without moves. */
  constructor(options: SegmentMovesOptions) {
    this.#options = options;
  }

  /** Moves under way. */
  get size(): number {
    return this.#active.size;
  }

  /** What the moves hold. */
  get held(): { readonly blocks: readonly (readonly BlockId[])[]; readonly slots: readonly BorrowedSlot[] } {
    const ends = [...this.#active.values()].flatMap(({ move: { from, to } }) => [from, to]);
    return {
      blocks: ends.flatMap((end) => end.kind === "local" ? [end.blocks] : []),
      slots: ends.flatMap((end) => end.kind === "slot" ? [end.slot] : []),
    };
  }

  /** The lowest segment of a running sequence that can be moved out now. */
  movable(sequence: Sequence): number | undefined {
    const full = Math.floor(sequence.computed / sequence.segmentTokens);
    for (let segment = 0; segment < full; segment++) {
      if (sequence.isLocal(segment) && this.#mayLeave(sequence, segment)) return segment;
    }
    return undefined;
  }

  /** Starts the move of a sequence's segment to the next slot of its reservation. */
  moveOut(sequence: Sequence, segment: number): SegmentMove | undefined {
    const reservation = this.#options.reservations.get(sequence);
    const slot = reservation?.unused.shift();
    if (reservation === undefined || slot === undefined) return undefined;
    const blocks = sequence.segmentBlocks(segment);
    for (const block of blocks) this.#options.pool.share(block);
    reservation.moving++;
    return this.#begin({
      move: {
        id: ++this.#lastId,
        sequence: sequence.id,
        segment,
        from: { kind: "local", blocks },
        to: { kind: "slot", slot },
      },
      reserved: { sequence, reservation },
    });
  }

  /** Starts a move from a slot in use to another slot, or home. @returns undefined when it cannot be. */
  relocate(from: BorrowedSlot, to?: BorrowedSlot): SegmentMove | undefined {
    const { borrowed, pool, tables } = this.#options;
    const [sequence, segment] = this.#userOf(from) ?? [];
    if (sequence === undefined || segment === undefined || this.#sources.has(slotKey(from))) return undefined;
    if (to === undefined && pool.available < tables.blocksPerSegment) return undefined;
    borrowed.hold(from);
    if (to !== undefined) borrowed.hold(to);
    return this.#begin({
      move: {
        id: ++this.#lastId,
        sequence: sequence.id,
        segment,
        from: { kind: "slot", slot: from },
        to: to !== undefined
          ? { kind: "slot", slot: to }
          : { kind: "local", blocks: Array.from({ length: tables.blocksPerSegment }, () => pool.allocate()) },
      },
    });
  }

  /** Ends a move now, or when the step under way is over. Unknown ids, as those of moves that failed, are ignored. */
  finish(id: number, verified: boolean): void {
    if (this.#stepUnderWay) this.#ended.push({ id, verified });
    else this.#land(id, verified);
  }

  /** A step begins: tables stay as they are. */
  beginStep(): void {
    this.#stepUnderWay = true;
  }

  /** The step is over. */
  endStep(): void {
    this.#stepUnderWay = false;
    for (const { id, verified } of this.#ended.splice(0)) this.#land(id, verified);
  }

  /** Slots are gone: moves that concern them have failed. */
  lose(isLost: (slot: BorrowedSlot) => boolean): void {
    for (const [id, { move: { from, to } }] of this.#active) {
      const lost = [from, to].some((end) => end.kind === "slot" && isLost(end.slot));
      if (lost) this.#land(id, false);
    }
  }

  #begin(active: ActiveMove): SegmentMove {
    this.#active.set(active.move.id, active);
    this.#sources.add(sourceOf(active.move.from));
    return active.move;
  }

  #land(id: number, verified: boolean): void {
    const active = this.#active.get(id);
    if (active === undefined) return;
    const { move, reserved } = active;
    this.#active.delete(id);
    this.#sources.delete(sourceOf(move.from));
    const flipped = verified ? [...this.#options.running].filter((sequence) => this.#flip(sequence, move)) : [];
    this.#letGo(move.from);
    this.#letGo(move.to);
    if (reserved !== undefined) reserved.reservation.moving--;
    for (const sequence of flipped) this.#refill(sequence);
    if (reserved?.sequence.status === "running") this.#options.reservations.settle(reserved.sequence);
  }

  #flip(sequence: Sequence, { segment, from, to }: SegmentMove): boolean {
    const { tables, now } = this.#options;
    const place = sequence.places.at(segment);
    const there = from.kind === "local"
      ? sequence.isLocal(segment) && sameBlocks(sequence.segmentBlocks(segment), from.blocks)
      : place?.kind === "borrowed" && slotKey(place.slot) === slotKey(from.slot);
    if (!there) return false;
    if (to.kind === "slot") tables.sendAway(sequence, { segment, slot: to.slot, atMs: now() });
    else tables.bringHome(sequence, { segment, blocks: to.blocks, atMs: now() });
    return true;
  }

  /** Gives a sequence back, of the blocks it gave up, what it was promised: for lost segments first. */
  #refill(sequence: Sequence): void {
    const { reservations, tables, now } = this.#options;
    const reservation = reservations.get(sequence);
    if (reservation === undefined) return;
    const lost = sequence.places.lost.at(0);
    if (lost !== undefined) tables.tryMend(sequence, lost, now());
    else {
      const wanted = tables.blocksFor(reservation.promised) - sequence.blocks.length;
      tables.extend(sequence, Math.max(0, Math.min(tables.blocksPerSegment, wanted)));
    }
    reservations.settle(sequence);
  }

  #letGo(end: End): void {
    if (end.kind === "local") this.#options.tables.releaseBlocks(end.blocks);
    else this.#options.borrowed.drop([end.slot]);
  }

  /** Whether a local segment can move: it does not move already, and whoever shares it moves with it. */
  #mayLeave(sequence: Sequence, segment: number): boolean {
    const blocks = sequence.segmentBlocks(segment);
    if (this.#sources.has(blocks[0]) || !this.#letsGo(sequence)) return false;
    for (const other of this.#options.running) {
      if (other !== sequence && !this.#letsGo(other) && other.blocks[segment * blocks.length] === blocks[0]) {
        return false;
      }
    }
    return true;
  }

  /** A pinned sequence lets a segment go only when it could not compute another token otherwise. */
  #letsGo(sequence: Sequence): boolean {
    if (!this.#options.isPinned(sequence)) return true;
    const { reservations } = this.#options;
    return reservations.isStuck(sequence) && reservations.get(sequence)?.moving === 0;
  }

  #userOf(slot: BorrowedSlot): [Sequence, number] | undefined {
    if (this.#options.borrowed.uses(slot) === 0) return undefined;
    const key = slotKey(slot);
    for (const sequence of this.#options.running) {
      for (const { segment, slot: used } of sequence.remoteBelow(Infinity).slots) {
        if (slotKey(used) === key) return [sequence, segment];
      }
    }
    return undefined;
  }
}

function sourceOf(from: End): string | BlockId {
  return from.kind === "local" ? from.blocks[0] : slotKey(from.slot);
}

function sameBlocks(one: readonly BlockId[], other: readonly BlockId[]): boolean {
  return one.length === other.length && one.every((block, i) => block === other[i]);
}
