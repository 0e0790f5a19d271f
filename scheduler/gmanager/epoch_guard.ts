/**
 * Epochs number the terms of gManagers. What a member obeys never goes back to an earlier term.
 *
 * @module
 */
import type { MemberIdentity } from "../protocol/member.ts";

/** Largest epoch. A larger number is a broken sender's; obeying it would leave no epoch for its successors. */
export const MAX_EPOCH = 2 ** 48;

/** Says that an epoch is older than one seen, or not an epoch. */
export interface RefusedEpoch {
  /** Kind. */
  readonly kind: "refused";
  /** Why. */
  readonly code: "stale_epoch" | "bad_shape";
  /** For people. */
  readonly detail: string;
}

/** The highest epoch that one member has seen; one guard for everything in the member that looks at epochs. */
export class EpochGuard {
  #highest: number;
  #leader?: MemberIdentity;

  /**
   * Makes a guard that has seen `seed`: what was stored, or 0.
   *
   * @throws {RangeError} when `seed` is not an epoch.
   */
  constructor(seed: number = 0) {
    if (!isEpoch(seed)) {
      throw new RangeError(`Cannot guard epochs: wanted a whole number from 0 to ${MAX_EPOCH}, got ${seed}`);
    }
    this.#highest = seed;
  }

  /** Highest epoch seen; never goes down. */
  get highest(): number {
    return this.#highest;
  }

  /** The gManager that leads the highest epoch; undefined while it has given no order here. */
  get leader(): MemberIdentity | undefined {
    return this.#leader;
  }

  /** Takes note of an epoch that a message carried. @returns whether it is higher than every one before. */
  see(epoch: number): boolean {
    if (!isEpoch(epoch) || epoch <= this.#highest) return false;
    this.#highest = epoch;
    this.#leader = undefined;
    return true;
  }

  /** Takes note of the epoch of a request and refuses one older than the highest seen. */
  check(epoch: number): RefusedEpoch | undefined {
    if (!isEpoch(epoch)) {
      return { kind: "refused", code: "bad_shape", detail: `wanted an epoch from 0 to ${MAX_EPOCH}, got ${epoch}` };
    }
    this.see(epoch);
    if (epoch === this.#highest) return undefined;
    return { kind: "refused", code: "stale_epoch", detail: `wanted epoch ${this.#highest} or later, got ${epoch}` };
  }

  /**
   * Takes note of the epoch of a gManager's order and refuses it from anybody but the one that leads: the one of the
   * highest epoch, and of two that took the same epoch the one with the greater incarnation.
   */
  order(epoch: number, from: MemberIdentity): RefusedEpoch | undefined {
    const refused = this.check(epoch);
    if (refused !== undefined) return refused;
    const leader = this.#leader;
    if (leader !== undefined && leader.incarnation > from.incarnation) {
      return {
        kind: "refused",
        code: "stale_epoch",
        detail:
          `wanted an order of ${leader.name}/${leader.incarnation}, which leads epoch ${epoch}, got one of ${from.name}/${from.incarnation}`,
      };
    }
    this.#leader = { name: from.name, incarnation: from.incarnation };
    return undefined;
  }
}

function isEpoch(epoch: number): boolean {
  return Number.isInteger(epoch) && epoch >= 0 && epoch <= MAX_EPOCH;
}
