/**
 * When a gManager leads, and when it gives way.
 *
 * @module
 */
import type { MemberIdentity } from "../protocol/member.ts";
import { type EpochGuard, MAX_EPOCH } from "./epoch_guard.ts";

/** What became of a gManager's term. */
export type TermState =
  /** It leads in the epoch that it had. */
  | "leads"
  /** It leads in a new epoch, above one that it heard of: say so to everybody. */
  | "raised"
  /** Another one leads; it gives no orders. */
  | "follows";

/**
 * One gManager's claims to lead. Members obey the highest epoch, so that two gManagers never both have their way:
 *
 * - Whoever claims takes an epoch above every one that it has heard of. Nothing about time is needed for that.
 * - It hears of a higher epoch whose leader it has not met: the epoch of a predecessor that is gone, or of another one
 *   that lives. It raises its own above that once. If it is outdone again within `rivalMs`, the other one lives, and it
 *   follows.
 * - It meets the leader of a higher epoch (an order or an acknowledgement came from it): it follows.
 * - Two that claimed the same epoch: members obey the greater incarnation; the other one sees its orders refused and
 *   follows.
 *
 * So the owner of the highest epoch never gives way, and every other one does as soon as it is told.
 */
export class Term {
  readonly #self: MemberIdentity;
  readonly #guard: EpochGuard;
  readonly #now: () => number;
  readonly #rivalMs: number;
  #epoch = 0;
  #leads = false;
  #raisedMs = -Infinity;

  /** Makes a gManager that does not lead yet: let it listen for a heartbeat or two, then {@linkcode claim}. */
  constructor(options: {
    readonly self: MemberIdentity;
    /** The member's guard; everything that looks at epochs feeds it. */
    readonly guard: EpochGuard;
    /** Clock, ms; never goes back. */
    readonly now: () => number;
    /** Time for which an outdone raise counts as the work of a living rival. @default 10_000 */
    readonly rivalMs?: number;
  }) {
    this.#self = options.self;
    this.#guard = options.guard;
    this.#now = options.now;
    this.#rivalMs = options.rivalMs ?? 10_000;
  }

  /** Epoch of its latest claim; 0 before the first. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Whether it may give orders. */
  get leads(): boolean {
    return this.#leads;
  }

  /**
   * Leads from now on, in an epoch above every one heard of.
   *
   * @returns the epoch.
   * @throws {RangeError} when there is none left.
   */
  claim(): number {
    const epoch = this.#guard.highest + 1;
    if (epoch > MAX_EPOCH) throw new RangeError(`Cannot lead: wanted an epoch up to ${MAX_EPOCH}, got ${epoch}`);
    this.#guard.order(epoch, this.#self);
    this.#epoch = epoch;
    this.#leads = true;
    return epoch;
  }

  /** Looks at the guard after it has seen the epoch of a message. */
  look(): TermState {
    if (!this.#leads) return "follows";
    const { highest, leader } = this.#guard;
    const other = leader !== undefined && leader.incarnation !== this.#self.incarnation;
    if (highest === this.#epoch && !other) return "leads";
    if (other || this.#now() - this.#raisedMs < this.#rivalMs) return this.#follow();
    this.claim();
    this.#raisedMs = this.#now();
    return "raised";
  }

  /** An order that it gave in `epoch` was refused as stale, and the guard has seen the epoch of the refusal. */
  refused(epoch: number): TermState {
    // Nobody leads a higher epoch, so another one has claimed this very one and the member obeys that one. An order of
    // an earlier epoch says nothing: it was late.
    if (epoch === this.#guard.highest) return this.#follow();
    return this.look();
  }

  #follow(): TermState {
    this.#leads = false;
    return "follows";
  }
}
