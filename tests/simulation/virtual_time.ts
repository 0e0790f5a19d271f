/**
 * The event queue and the clock of a simulated world.
 *
 * @module
 */
import { hashText } from "./random.ts";

/** Something that will happen, unless it is cancelled. */
export interface Scheduled {
  /** Takes it back; nothing happens when it has happened already. */
  cancel(): void;
}

interface Entry extends Scheduled {
  readonly atMs: number;
  readonly order: number;
  readonly label: string;
  run: (() => void) | undefined;
}

/** Labels kept for a failure's report. */
const HISTORY = 60;

/** Virtual time: nothing passes but what the events say. Events of one moment happen in the order they were scheduled. */
export class VirtualTime {
  readonly #heap: Entry[] = [];
  readonly #history: string[] = [];
  #nowMs = 0;
  #order = 0;
  #events = 0;
  #hash = 0;
  /** Called with a line for each event; for traces. */
  trace: ((line: string) => void) | undefined;

  /** Now, ms since the beginning. */
  get nowMs(): number {
    return this.#nowMs;
  }

  /** Events that have happened. */
  get events(): number {
    return this.#events;
  }

  /** Hash of everything that has happened: equal for equal runs. */
  get hash(): number {
    return this.#hash;
  }

  /** The last events and notes, oldest first. */
  get history(): readonly string[] {
    return this.#history;
  }

  /** Events waiting, cancelled ones not counted. */
  get pending(): number {
    return this.#heap.reduce((sum, entry) => sum + (entry.run === undefined ? 0 : 1), 0);
  }

  /** Lets something happen after a while; a negative delay is none. */
  after(delayMs: number, label: string, run: () => void): Scheduled {
    const entry: Entry = {
      atMs: this.#nowMs + Math.max(0, delayMs),
      order: this.#order++,
      label,
      run,
      cancel: () => entry.run = undefined,
    };
    this.#push(entry);
    return entry;
  }

  /** Adds a line to the history and the hash without an event of its own. */
  note(line: string): void {
    this.#hash = hashText(line, this.#hash);
    this.#history.push(`${this.#events} ${this.#nowMs.toFixed(3)} ${line}`);
    if (this.#history.length > HISTORY) this.#history.shift();
    this.trace?.(`${this.#events} ${this.#nowMs.toFixed(3)} ${line}`);
  }

  /** Lets the next event happen. @returns whether there was one no later than `untilMs`. */
  step(untilMs = Infinity): boolean {
    for (;;) {
      const entry = this.#heap[0];
      if (entry === undefined || entry.atMs > untilMs) return false;
      this.#pop();
      const { run } = entry;
      if (run === undefined) continue;
      entry.run = undefined;
      this.#nowMs = entry.atMs;
      this.#events++;
      this.note(entry.label);
      run();
      return true;
    }
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(entry);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!before(entry, heap[parent])) break;
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = entry;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1], heap[child])) child++;
      if (!before(heap[child], last)) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = last;
  }
}

function before(a: Entry, b: Entry): boolean {
  return a.atMs < b.atMs || a.atMs === b.atMs && a.order < b.order;
}
