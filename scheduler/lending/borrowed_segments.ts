/**
 * Slots at other members that this home has: who uses each of them, and which content can be found in them.
 *
 * @module
 */
import { type BorrowedSlot, slotKey } from "./borrowed.ts";

interface Entry {
  readonly slot: BorrowedSlot;
  /** Everything that keeps the slot: tables, reservations, moves, steps under way. */
  references: number;
  /** Tables of live sequences among them. */
  uses: number;
  /** Name of the content, while a table uses it. */
  digest: string | undefined;
}

/**
 * Counts references to slots. The last one to go gives the slot back through `onRelease`; slots that were lost are
 * forgotten without. The content of a slot can be found while a live sequence uses it, and no longer.
 */
export class BorrowedSegments {
  readonly #entries = new Map<string, Entry>();
  readonly #index = new Map<string, Entry>();
  readonly #onRelease: (slots: readonly BorrowedSlot[]) => void;
  #used = 0;

  /** Starts empty. */
  constructor(onRelease: (slots: readonly BorrowedSlot[]) => void) {
    this.#onRelease = onRelease;
  }

  /** Slots that sequences use. */
  get used(): number {
    return this.#used;
  }

  /** Slots in all. */
  get size(): number {
    return this.#entries.size;
  }

  /** Whether `slot` is known: granted, and neither lost nor given back. */
  has(slot: BorrowedSlot): boolean {
    return this.#entries.has(slotKey(slot));
  }

  /** Tables that use `slot`. */
  uses(slot: BorrowedSlot): number {
    return this.#entries.get(slotKey(slot))?.uses ?? 0;
  }

  /** A slot in use with the content `digest` names. */
  find(digest: string): BorrowedSlot | undefined {
    return this.#index.get(digest)?.slot;
  }

  /** Adds a reference to a slot, new or known. */
  hold(slot: BorrowedSlot): void {
    const key = slotKey(slot);
    const entry = this.#entries.get(key);
    if (entry === undefined) this.#entries.set(key, { slot, references: 1, uses: 0, digest: undefined });
    else entry.references++;
  }

  /** Adds the reference of a table. `digest` names the content where it may be shared. @throws {RangeError} when unknown. */
  use(slot: BorrowedSlot, digest: string | undefined): void {
    const entry = this.#entries.get(slotKey(slot));
    if (entry === undefined) throw new RangeError(`Cannot use slot ${slotKey(slot)}: wanted one that was granted`);
    entry.references++;
    if (entry.uses++ === 0) this.#used++;
    if (digest === undefined || this.#index.has(digest)) return;
    this.#index.set(digest, entry);
    entry.digest = digest;
  }

  /** Turns references of tables into plain ones: the sequence has ended, its step has not. */
  retire(slots: Iterable<BorrowedSlot>): void {
    for (const slot of slots) {
      const entry = this.#entries.get(slotKey(slot));
      if (entry !== undefined) this.#unuse(entry);
    }
  }

  /** Drops one plain reference to each slot; those without any are given back. Lost slots are passed over. */
  drop(slots: Iterable<BorrowedSlot>): void {
    const free: BorrowedSlot[] = [];
    for (const slot of slots) {
      const key = slotKey(slot);
      const entry = this.#entries.get(key);
      if (entry === undefined || --entry.references > 0) continue;
      this.#entries.delete(key);
      free.push(slot);
    }
    if (free.length > 0) this.#onRelease(free);
  }

  /** Drops the reference of a table to each slot. */
  dropUses(slots: readonly BorrowedSlot[]): void {
    this.retire(slots);
    this.drop(slots);
  }

  /** Forgets the slots of an incarnation, all or those of some leases. */
  lose(incarnation: string, leases?: ReadonlySet<number>): readonly BorrowedSlot[] {
    const lost: BorrowedSlot[] = [];
    for (const [key, { slot, digest, uses }] of this.#entries) {
      if (slot.creditor.incarnation !== incarnation || leases?.has(slot.lease) === false) continue;
      this.#entries.delete(key);
      if (digest !== undefined) this.#index.delete(digest);
      if (uses > 0) this.#used--;
      lost.push(slot);
    }
    return lost;
  }

  /** Slots by incarnation of the creditor. */
  byIncarnation(): ReadonlyMap<string, readonly BorrowedSlot[]> {
    return Map.groupBy([...this.#entries.values()].map(({ slot }) => slot), ({ creditor }) => creditor.incarnation);
  }

  /**
   * Checks the counts against everything that refers to slots: tables, and all else.
   *
   * @throws {Error} with the arithmetic that does not hold.
   */
  checkIntegrity(
    references: { readonly tables: Iterable<BorrowedSlot>; readonly others: Iterable<BorrowedSlot> },
  ): void {
    const uses = countKeys(references.tables);
    const others = countKeys(references.others);
    for (const key of [...uses.keys(), ...others.keys()]) {
      if (!this.#entries.has(key)) {
        throw new Error(`Borrowed segments are broken: slot ${key} is referred to, not known`);
      }
    }
    let used = 0;
    for (const [key, entry] of this.#entries) {
      const [inTables, elsewhere] = [uses.get(key) ?? 0, others.get(key) ?? 0];
      if (inTables > 0) used++;
      if (inTables !== entry.uses || inTables + elsewhere !== entry.references || entry.references < 1) {
        throw new Error(
          `Borrowed segments are broken: slot ${key} is in ${inTables} tables and ${elsewhere} other places, ` +
            `counted ${entry.uses} uses and ${entry.references} references`,
        );
      }
      if (entry.digest !== undefined && (entry.uses === 0 || this.#index.get(entry.digest) !== entry)) {
        throw new Error(
          `Borrowed segments are broken: slot ${key} with ${entry.uses} uses has a digest that is not its`,
        );
      }
    }
    const digests = [...this.#entries.values()].filter(({ digest }) => digest !== undefined).length;
    if (used !== this.#used || digests !== this.#index.size) {
      throw new Error(
        `Borrowed segments are broken: ${used} used != counted ${this.#used}, or ${digests} digests != index ` +
          `${this.#index.size}`,
      );
    }
  }

  #unuse(entry: Entry): void {
    if (--entry.uses > 0) return;
    this.#used--;
    if (entry.digest !== undefined) this.#index.delete(entry.digest);
    entry.digest = undefined;
  }
}

function countKeys(slots: Iterable<BorrowedSlot>): Map<string, number> {
  const counts = new Map<string, number>();
  for (const slot of slots) counts.set(slotKey(slot), (counts.get(slotKey(slot)) ?? 0) + 1);
  return counts;
}
