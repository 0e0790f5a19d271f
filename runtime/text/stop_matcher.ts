/**
 * Finds stop strings in text that arrives in parts.
 *
 * @module
 */

/** One state of the automaton: how much of which stop strings the text ends with. */
interface State {
  readonly next: Map<number, State>;
  /** Length of the prefix this state stands for, UTF-16 units. */
  readonly depth: number;
  /** State of the longest proper suffix that is also a prefix of a stop string. */
  fail: State | undefined;
  /** The longest stop string that ends here. */
  stop: string | undefined;
}

/** Result of {@linkcode StopMatcher.push}. */
export interface StopMatch {
  /** Text that is certain not to belong to a stop string (with `includeStop`, the stop string too). */
  readonly text: string;
  /** The stop string that ended the text. */
  readonly stop?: string;
}

/**
 * Watches a text for stop strings (Aho-Corasick). The stop string that *ends* first wins, so the result does not depend
 * on how the text was cut into parts and no text has to be awaited behind a match; of two that end at the same place the
 * longer one wins. Text that may be the beginning of a stop string is held back until that is decided.
 */
export class StopMatcher {
  readonly #root: State;
  readonly #includeStop: boolean;
  #state: State;
  #held = "";
  #ended = false;

  /**
   * Makes one for `stops`; with `includeStop` the text keeps the stop string that ended it.
   *
   * @throws {RangeError} when a stop string is empty or not well-formed UTF-16.
   */
  constructor(stops: readonly string[], options: { readonly includeStop: boolean }) {
    this.#root = buildAutomaton(stops);
    this.#state = this.#root;
    this.#includeStop = options.includeStop;
  }

  /** Takes the next part of the text. After a match every further part is dropped. */
  push(text: string): StopMatch {
    if (this.#ended) return { text: "" };
    if (this.#root.next.size === 0) return { text };
    const all = this.#held + text;
    for (let i = this.#held.length; i < all.length; i++) {
      this.#state = step(this.#root, this.#state, all.charCodeAt(i));
      const { stop } = this.#state;
      if (stop !== undefined) {
        this.#ended = true;
        this.#held = "";
        return { text: all.slice(0, i + 1 - (this.#includeStop ? 0 : stop.length)), stop };
      }
    }
    const certain = all.length - this.#state.depth;
    this.#held = all.slice(certain);
    return { text: all.slice(0, certain) };
  }

  /** Text still held back, when the text ends without a stop string. */
  flush(): string {
    const held = this.#held;
    this.#held = "";
    this.#state = this.#root;
    return held;
  }
}

function step(root: State, from: State, unit: number): State {
  for (let state: State | undefined = from; state !== undefined; state = state.fail) {
    const next = state.next.get(unit);
    if (next !== undefined) return next;
  }
  return root;
}

function buildAutomaton(stops: readonly string[]): State {
  const root: State = { next: new Map(), depth: 0, fail: undefined, stop: undefined };
  for (const stop of stops) {
    if (stop === "" || !stop.isWellFormed()) {
      throw new RangeError(`Cannot use stop string ${JSON.stringify(stop)}: wanted at least one whole character`);
    }
    let state = root;
    for (let i = 0; i < stop.length; i++) {
      const unit = stop.charCodeAt(i);
      const next = state.next.get(unit) ?? { next: new Map(), depth: i + 1, fail: root, stop: undefined };
      state.next.set(unit, next);
      state = next;
    }
    state.stop = stop;
  }
  const queue = [...root.next.values()];
  for (const state of queue) {
    for (const [unit, next] of state.next) {
      next.fail = state.fail === undefined ? root : step(root, state.fail, unit);
      next.stop ??= next.fail.stop;
      queue.push(next);
    }
  }
  return root;
}
