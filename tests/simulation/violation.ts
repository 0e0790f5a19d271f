/**
 * Something that must never happen has happened.
 *
 * @module
 */

/** Names of the promises that a run checks, as `docs` and the invariants' messages have them. */
export type Invariant =
  | "I1"
  | "I2"
  | "I3"
  | "I4"
  | "I5"
  | "I6"
  | "I8"
  | "I9"
  | "I10"
  /** A member threw. */
  | "Throw"
  /** Healed, the world did not come to rest. */
  | "Liveness";

/** A broken promise; the message states the arithmetic. */
export class Violation extends Error {
  /** Error name. */
  override readonly name = "Violation";
  /** Which promise. */
  readonly invariant: Invariant;

  /** Makes one. */
  constructor(invariant: Invariant, message: string, options: { readonly cause?: unknown } = {}) {
    super(`${invariant}: ${message}`, options);
    this.invariant = invariant;
  }
}
