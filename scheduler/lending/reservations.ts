/**
 * What sequences were granted at other members and do not use yet.
 *
 * @module
 */
import type { Sequence } from "../sequence.ts";
import type { BorrowedSlot } from "./borrowed.ts";

/** What one sequence was granted. */
export interface Reservation {
  /** Slots that nothing was moved to, in the order they are used. */
  readonly unused: BorrowedSlot[];
  /** Segments on their way from its local blocks to slots of this reservation. */
  moving: number;
  /**
   * Tokens it was promised room for. Each unused or moving slot gives the local blocks of one segment back to it, so the
   * promise stands as long as promised <= capacity of its table + (unused + moving) segments.
   */
  promised: number;
}

/** The reservations of all sequences. */
export class Reservations {
  readonly #bySequence = new Map<Sequence, Reservation>();

  /** Reservations in all. */
  get size(): number {
    return this.#bySequence.size;
  }

  /** What a sequence was granted. */
  get(sequence: Sequence): Reservation | undefined {
    return this.#bySequence.get(sequence);
  }

  /** Adds slots. */
  add(sequence: Sequence, slots: readonly BorrowedSlot[]): Reservation {
    const reservation = this.#bySequence.get(sequence) ?? { unused: [], moving: 0, promised: 0 };
    reservation.unused.push(...slots);
    this.#bySequence.set(sequence, reservation);
    return reservation;
  }

  /** Tokens it may have in the end: its table, and what comes back of it as segments move out. */
  backed(sequence: Sequence): number {
    const { unused = [], moving = 0 } = this.#bySequence.get(sequence) ?? {};
    return sequence.capacity + (unused.length + moving) * sequence.segmentTokens;
  }

  /** Whether a running sequence can compute nothing before a segment of its own has moved out. */
  isStuck(sequence: Sequence): boolean {
    const { computed, capacity, places } = sequence;
    if (places.lost.length > 0) return true;
    return capacity <= computed && (this.#bySequence.get(sequence)?.promised ?? 0) > capacity;
  }

  /** Lowers a promise to what still stands behind it. */
  settle(sequence: Sequence): void {
    const reservation = this.#bySequence.get(sequence);
    if (reservation === undefined) return;
    reservation.promised = Math.min(reservation.promised, this.backed(sequence));
    if (reservation.unused.length + reservation.moving === 0 && reservation.promised <= sequence.capacity) {
      this.#bySequence.delete(sequence);
    }
  }

  /** Forgets a sequence. @returns its unused slots. */
  take(sequence: Sequence): readonly BorrowedSlot[] {
    const reservation = this.#bySequence.get(sequence);
    this.#bySequence.delete(sequence);
    return reservation?.unused ?? [];
  }

  /** Takes unused slots away, and lowers the promises that stood on them. @returns the slots. */
  withdraw(isMeant: (slot: BorrowedSlot) => boolean, { most = Infinity } = {}): readonly BorrowedSlot[] {
    const taken: BorrowedSlot[] = [];
    for (const [sequence, { unused }] of this.#bySequence) {
      const kept: BorrowedSlot[] = [];
      for (const slot of unused.splice(0)) (isMeant(slot) && taken.length < most ? taken : kept).push(slot);
      unused.push(...kept);
      if (sequence.status === "running") this.settle(sequence);
      else if (kept.length === 0) this.#bySequence.delete(sequence);
    }
    return taken;
  }

  /** All of them. */
  [Symbol.iterator](): IterableIterator<[Sequence, Reservation]> {
    return this.#bySequence.entries();
  }

  /** Checks every promise. @throws {Error} with the arithmetic that does not hold. */
  checkIntegrity(): void {
    for (const [sequence, { unused, moving, promised }] of this.#bySequence) {
      const { id, status, capacity, segmentTokens } = sequence;
      if (status === "ended" || (status === "waiting" && (moving > 0 || promised > 0))) {
        throw new Error(
          `Reservation is broken: sequence ${id} is ${status} with ${moving} moving, ${promised} tokens promised`,
        );
      }
      if (promised > capacity + (unused.length + moving) * segmentTokens) {
        throw new Error(
          `Reservation is broken: sequence ${id} is promised ${promised} tokens > capacity ${capacity} + ` +
            `(unused ${unused.length} + moving ${moving}) * ${segmentTokens}`,
        );
      }
    }
  }
}
