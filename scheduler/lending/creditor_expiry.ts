/**
 * Which lease runs out next.
 *
 * @module
 */

interface Entry {
  readonly lease: number;
  atMs: number;
  /** Index in the heap. */
  place: number;
}

/**
 * A binary heap of leases by their *current* expiry: a renewal moves the entry, so the first entry is always the next
 * to run out and nothing hides behind a renewed one.
 */
export class ExpiryHeap {
  readonly #heap: Entry[] = [];
  readonly #entries = new Map<number, Entry>();

  /** Leases in the heap. */
  get size(): number {
    return this.#heap.length;
  }

  /** The lease that runs out first, and when; undefined when there is none. */
  get first(): { readonly lease: number; readonly atMs: number } | undefined {
    return this.#heap.at(0);
  }

  /** When `lease` runs out; undefined when it is not in the heap. */
  at(lease: number): number | undefined {
    return this.#entries.get(lease)?.atMs;
  }

  /** Adds a lease, or moves it to another expiry, later or earlier. */
  set(lease: number, atMs: number): void {
    let entry = this.#entries.get(lease);
    if (entry === undefined) {
      entry = { lease, atMs, place: this.#heap.length };
      this.#entries.set(lease, entry);
      this.#heap.push(entry);
    } else {
      entry.atMs = atMs;
    }
    this.#settle(entry);
  }

  /** Takes a lease out. @returns whether it was there. */
  delete(lease: number): boolean {
    const entry = this.#entries.get(lease);
    if (entry === undefined) return false;
    this.#entries.delete(lease);
    const last = this.#heap.pop();
    if (last !== undefined && last !== entry) {
      this.#put(last, entry.place);
      this.#settle(last);
    }
    return true;
  }

  /**
   * Checks the order of the heap.
   *
   * @throws {Error} with the entries that are out of order.
   */
  checkIntegrity(): void {
    if (this.#heap.length !== this.#entries.size) {
      throw new Error(`Expiry heap is broken: entries ${this.#heap.length} != leases ${this.#entries.size}`);
    }
    for (const [place, entry] of this.#heap.entries()) {
      const parent = this.#heap[(place - 1) >> 1];
      if (entry.place !== place || (place > 0 && parent.atMs > entry.atMs)) {
        throw new Error(
          `Expiry heap is broken: lease ${entry.lease} at place ${place} (noted ${entry.place}) runs out at ${entry.atMs}, its parent at ${parent?.atMs}`,
        );
      }
    }
  }

  /** Moves an entry up or down until the order holds. */
  #settle(entry: Entry): void {
    while (entry.place > 0) {
      const parent = this.#heap[(entry.place - 1) >> 1];
      if (parent.atMs <= entry.atMs) break;
      this.#swap(entry, parent);
    }
    for (;;) {
      const left = this.#heap.at(2 * entry.place + 1);
      const right = this.#heap.at(2 * entry.place + 2);
      if (left === undefined) return;
      const child = right !== undefined && right.atMs < left.atMs ? right : left;
      if (child.atMs >= entry.atMs) return;
      this.#swap(entry, child);
    }
  }

  #swap(a: Entry, b: Entry): void {
    const place = a.place;
    this.#put(a, b.place);
    this.#put(b, place);
  }

  #put(entry: Entry, place: number): void {
    entry.place = place;
    this.#heap[place] = entry;
  }
}
