/**
 * The outside of a member: clock, timers, randomness and links. Everything a member does follows from what comes in
 * through these, so that a run can be repeated exactly.
 *
 * @module
 */
import type { Network } from "../../scheduler/links/link.ts";

/** A timer that has been set. */
export interface Timer {
  /** Keeps it from firing. Idempotent. */
  cancel(): void;
}

/** What a member runs on. */
export interface MemberPorts {
  /** Monotonic clock, ms. */
  now(): number;
  /** Uniform in [0, 1). */
  random(): number;
  /** Calls `fire` once, after `ms` at the earliest. */
  timer(ms: number, fire: () => void): Timer;
  /** Calls `work` soon, after whatever came in meanwhile. */
  defer(work: () => void): void;
  /** Links to others. */
  readonly network: Network;
  /** Takes a line of the log. */
  log(message: string): void;
}
