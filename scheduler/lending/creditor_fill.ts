/**
 * A newcomer with empty memory looks best to everybody at once. It fills gently, so that it is not flooded with
 * transfers before it has shown what it can do.
 *
 * @module
 */

/** Settings of {@linkcode GentleFill}. */
export interface GentleFillOptions {
  /** Time after its start for which a member is a newcomer; 0 turns gentle fill off. @default 10_000 */
  readonly newcomerMs?: number;
  /** Share of its free memory that a newcomer lends in each interval, 0 to 1. @default 0.25 */
  readonly share?: number;
  /** Interval. @default 1_000 */
  readonly intervalMs?: number;
}

/**
 * Paces grants by share of free memory. A grant is admitted while the allowance is positive and may overdraw it, so
 * that a grant of any size passes; the next one waits until the debt is worked off.
 */
export class GentleFill {
  readonly #now: () => number;
  readonly #endMs: number;
  readonly #share: number;
  readonly #intervalMs: number;
  #atMs: number;
  /** In shares of free memory; at most the share of one interval. */
  #allowance: number;

  /**
   * Starts the time of the newcomer.
   *
   * @throws {RangeError} when a setting is outside its range.
   */
  constructor(options: GentleFillOptions & { readonly now: () => number }) {
    const { now, newcomerMs = 10_000, share = 0.25, intervalMs = 1_000 } = options;
    if (!(newcomerMs >= 0 && share > 0 && share <= 1 && intervalMs > 0)) {
      throw new RangeError(
        `Cannot pace lending: wanted newcomerMs >= 0, share in (0, 1], intervalMs > 0, got ${newcomerMs}, ${share}, ${intervalMs}`,
      );
    }
    this.#now = now;
    this.#atMs = now();
    this.#endMs = this.#atMs + newcomerMs;
    this.#share = share;
    this.#intervalMs = intervalMs;
    this.#allowance = share;
  }

  /** Milliseconds until the next grant is admitted; 0 when it is now. */
  waitMs(): number {
    const nowMs = this.#now();
    const allowance = this.#allowanceAt(nowMs);
    if (nowMs >= this.#endMs || allowance > 0) return 0;
    return Math.min(this.#endMs - nowMs, Math.floor(-allowance * this.#intervalMs / this.#share) + 1);
  }

  /** Takes note of a grant of `blocks` out of `free` ones. */
  granted(blocks: number, free: number): void {
    const nowMs = this.#now();
    this.#allowance = this.#allowanceAt(nowMs) - blocks / free;
    this.#atMs = nowMs;
  }

  #allowanceAt(nowMs: number): number {
    return Math.min(this.#share, this.#allowance + (nowMs - this.#atMs) * this.#share / this.#intervalMs);
  }
}
