/**
 * Room at others, as the debtor names it.
 *
 * @module
 */
import type { MemberIdentity } from "../protocol/member.ts";

/** One slot of one lease: room for one segment at a creditor. */
export interface BorrowedSlot {
  /** Who lends it. */
  readonly creditor: MemberIdentity;
  /** Lease, unique in the creditor's incarnation. */
  readonly lease: number;
  /** Stamp of the lease. */
  readonly stamp: number;
  /** Slot in the lease. */
  readonly slot: number;
}

/** Key of a slot, unique over all creditors. */
export function slotKey({ creditor, lease, slot }: BorrowedSlot): string {
  return `${creditor.name}/${creditor.incarnation}/${lease}/${slot}`;
}
