/**
 * What a creditor is asked, what it answers, and its settings.
 *
 * @module
 */
import type { BlockId, BlockPool } from "../block_pool.ts";
import type { EpochGuard } from "../gmanager/epoch_guard.ts";
import type { KvFormat, MemberIdentity } from "../protocol/member.ts";
import type { RefusalCode, SlotRun } from "../protocol/messages.ts";
import type { GentleFillOptions } from "./creditor_fill.ts";
import type { LendLimit } from "./lend_limit.ts";

/** An answer that says no. */
export interface RefusedLease {
  /** Kind. */
  readonly kind: "refused";
  /** Why. */
  readonly code: RefusalCode;
  /** For people: what was wanted and what came. */
  readonly detail: string;
}

/** Why a format is not accepted. */
export interface RefusedFormat {
  /** Why. */
  readonly code: RefusalCode;
  /** For people. */
  readonly detail: string;
}

/** What a debtor asks for. */
export interface GrantRequest {
  /** Unique among the calls of the debtor's incarnation. */
  readonly call: number;
  /** Sequence, `HOME/HANDLE`. */
  readonly sequence: string;
  /** Slots. */
  readonly segments: number;
  /** Format of what goes there. */
  readonly format: KvFormat;
  /** Highest epoch that the debtor has seen. */
  readonly epoch: number;
}

/** Answer to {@linkcode GrantRequest}. */
export type GrantAnswer =
  | { readonly kind: "granted"; readonly run: SlotRun; readonly ttlMs: number }
  | RefusedLease;

/** Answer to a touch: blocks of the slots, in order, `blocksPerSegment` for each. */
export type TouchAnswer = { readonly kind: "blocks"; readonly blocks: readonly BlockId[] } | RefusedLease;

/** A lease that is over before its debtor gave everything back. */
export interface RevokedLease {
  /** Lease. */
  readonly lease: number;
  /** Who borrowed. */
  readonly debtor: MemberIdentity;
  /** Sequence it was for. */
  readonly sequence: string;
  /** Slots that were still live. */
  readonly segments: number;
  /** `expired`; `recalled`: not given back in time; `gone`: its debtor is; `revoked`: by decision of the caller. */
  readonly reason: "expired" | "recalled" | "gone" | "revoked";
}

/** Segments to call back from a debtor. */
export interface RecallRequest {
  /** Whom to ask. */
  readonly debtor: MemberIdentity;
  /** Segments to give back, of whichever leases the debtor chooses. */
  readonly segments: number;
  /** Time to tell the debtor; a little shorter than the time after which leases are revoked. */
  readonly withinMs: number;
  /** Its leases, oldest first: the order in which they would be revoked. */
  readonly leases: readonly number[];
}

/** What a creditor has lent. */
export interface CreditorCounts {
  /** Leases. */
  readonly leases: number;
  /** Live slots. */
  readonly segments: number;
  /** Live slots with verified content. */
  readonly filled: number;
  /** Blocks of live slots. */
  readonly lentBlocks: number;
  /** Blocks given back and not free yet. */
  readonly quarantinedBlocks: number;
  /** Holds on slots that work in flight uses. */
  readonly holds: number;
}

/** Settings of {@linkcode Creditor}. */
export interface CreditorOptions {
  /** Blocks to lend from. */
  readonly pool: BlockPool;
  /** Blocks of one segment. */
  readonly blocksPerSegment: number;
  /** Format of the pool's blocks; undefined while none is bound. */
  readonly format: () => KvFormat | undefined;
  /**
   * Binds the memory to another format; called when none is bound, or another while nothing is lent. Afterwards `format`
   * returns it; where pool or blocks of a segment change with it, the callee calls `Creditor.rebind`. Without
   * it the format is what it is.
   */
  readonly acceptFormat?: (format: KvFormat) => RefusedFormat | undefined;
  /** Clock, ms; never goes back. */
  readonly now: () => number;
  /** Time after which a lease runs out unless renewed. @default 10_000 */
  readonly ttlMs?: number;
  /** How much is lent. */
  readonly limit: LendLimit;
  /** Who lends. */
  readonly self: MemberIdentity;
  /** Most leases at once; also the most ended calls that are remembered. @default 4_096 */
  readonly maxLeases?: number;
  /** How fast a newcomer fills. */
  readonly fill?: GentleFillOptions;
  /** Highest epoch that this member has seen. @default a guard of its own */
  readonly epochs?: EpochGuard;
}
