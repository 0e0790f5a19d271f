/**
 * Least-recently-used order over small integers.
 *
 * @module
 */

/** A doubly linked list threaded through two integer arrays: every operation takes constant time and no allocation. */
export class LruList {
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #head: number;
  #size = 0;

  /** Makes an empty list for the items 0 to `capacity - 1`. */
  constructor(capacity: number) {
    this.#head = capacity;
    // Entry `capacity` is the ring's sentinel; an item that points at itself is outside the list.
    this.#next = Int32Array.from({ length: capacity + 1 }, (_, item) => item);
    this.#previous = this.#next.slice();
  }

  /** Items in the list. */
  get size(): number {
    return this.#size;
  }

  /** Whether `item` is in the list. */
  has(item: number): boolean {
    return this.#next[item] !== item;
  }

  /**
   * Adds `item` as the most recently used one.
   *
   * @throws {RangeError} when it is in the list already.
   */
  push(item: number): void {
    if (this.has(item)) throw new RangeError(`Cannot add item ${item}: wanted one outside the list, it is inside`);
    const last = this.#previous[this.#head];
    this.#next[last] = item;
    this.#previous[item] = last;
    this.#next[item] = this.#head;
    this.#previous[this.#head] = item;
    this.#size++;
  }

  /**
   * Takes `item` out.
   *
   * @throws {RangeError} when it is not in the list.
   */
  remove(item: number): void {
    if (!this.has(item)) throw new RangeError(`Cannot remove item ${item}: wanted one inside the list, it is outside`);
    this.#next[this.#previous[item]] = this.#next[item];
    this.#previous[this.#next[item]] = this.#previous[item];
    this.#next[item] = item;
    this.#previous[item] = item;
    this.#size--;
  }

  /** The least recently used item; undefined when the list is empty. */
  oldest(): number | undefined {
    return this.#size === 0 ? undefined : this.#next[this.#head];
  }

  /** Items from the least to the most recently used. */
  *[Symbol.iterator](): Iterator<number> {
    for (let item = this.#next[this.#head]; item !== this.#head; item = this.#next[item]) yield item;
  }
}
