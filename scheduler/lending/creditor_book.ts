/**
 * The leases of one creditor, by number, by call and by expiry.
 *
 * @module
 */
import type { MemberIdentity } from "../protocol/member.ts";
import { ExpiryHeap } from "./creditor_expiry.ts";
import { Lease, type LeaseMemory, type LeaseTerms } from "./creditor_lease.ts";

/** Leases are numbered below this, so that no two stamps of one creditor are equal. */
const MAX_LEASE = 2 ** 32;

/** Numbers leases and finds them again. Iterates over the live ones, oldest first. */
export class LeaseBook {
  readonly #maxLeases: number;
  readonly #stampSeed: number;
  readonly #leases = new Map<number, Lease>();
  readonly #calls = new Map<string, Lease>();
  /** Calls whose lease is over, oldest first, so that a late repetition is not granted again. */
  readonly #ended = new Map<string, { readonly lease: number; readonly atMs: number }>();
  readonly #expiry = new ExpiryHeap();
  #next = 1;

  /**
   * Makes an empty book for one incarnation of a creditor. It remembers as many ended calls as it holds leases.
   *
   * @throws {RangeError} when `maxLeases` is not a positive whole number.
   */
  constructor(options: { readonly incarnation: string; readonly maxLeases: number }) {
    const { incarnation, maxLeases } = options;
    if (!Number.isInteger(maxLeases) || maxLeases < 1) {
      throw new RangeError(`Cannot keep leases: wanted maxLeases a positive whole number, got ${maxLeases}`);
    }
    this.#maxLeases = maxLeases;
    this.#stampSeed = hash(incarnation);
  }

  /** Live leases. */
  get size(): number {
    return this.#leases.size;
  }

  /** Whether no further lease can be opened. */
  get full(): boolean {
    return this.#leases.size >= this.#maxLeases || this.#next >= MAX_LEASE;
  }

  /** The lease that runs out first, and when. */
  get next(): { readonly lease: Lease; readonly atMs: number } | undefined {
    const first = this.#expiry.first;
    const lease = first && this.#leases.get(first.lease);
    return first && lease && { lease, atMs: first.atMs };
  }

  /** A live lease. */
  get(lease: number): Lease | undefined {
    return this.#leases.get(lease);
  }

  /** What a call of a debtor got: a lease that lives or one that is over; undefined when it got none that is remembered. */
  ofCall(debtor: MemberIdentity, call: number): Lease | { readonly over: number } | undefined {
    const key = callKey(debtor, call);
    const ended = this.#ended.get(key);
    return this.#calls.get(key) ?? (ended && { over: ended.lease });
  }

  /** Live leases of a debtor, oldest first. */
  of(incarnation: string): Lease[] {
    return Array.from(this).filter(({ terms }) => terms.debtor.incarnation === incarnation);
  }

  /** Debtors and their live segments, most segments first; of equal ones the one with the oldest lease first. */
  debtors(): readonly { readonly debtor: MemberIdentity; readonly segments: number }[] {
    const debtors = new Map<string, { debtor: MemberIdentity; segments: number }>();
    for (const { terms: { debtor }, live } of this) {
      const known = debtors.get(debtor.incarnation);
      if (known === undefined) debtors.set(debtor.incarnation, { debtor, segments: live });
      else known.segments += live;
    }
    return [...debtors.values()].sort((a, b) => b.segments - a.segments);
  }

  /** Opens a lease that runs out at `expiresMs`. The book must not be full. */
  open(terms: Omit<LeaseTerms, "lease" | "stamp">, memory: LeaseMemory & { readonly expiresMs: number }): Lease {
    const id = this.#next++;
    const lease = new Lease({ ...terms, lease: id, stamp: this.#stamp(id) }, memory);
    this.#leases.set(id, lease);
    this.#calls.set(callKey(terms.debtor, terms.call), lease);
    this.#expiry.set(id, memory.expiresMs);
    return lease;
  }

  /** When a live lease runs out. */
  expiryOf(lease: Lease): number {
    const atMs = this.#expiry.at(lease.terms.lease);
    if (atMs === undefined) throw new Error(`Lease book is broken: lease ${lease.terms.lease} has no expiry`);
    return atMs;
  }

  /** Lets a live lease run until `expiresMs`. */
  extend(lease: Lease, expiresMs: number): void {
    this.#expiry.set(lease.terms.lease, expiresMs);
  }

  /** Strikes a lease that is over. */
  close(lease: Lease, atMs: number): void {
    const { lease: id, debtor, call } = lease.terms;
    const key = callKey(debtor, call);
    this.#leases.delete(id);
    this.#calls.delete(key);
    this.#expiry.delete(id);
    this.#ended.set(key, { lease: id, atMs });
    const [oldest] = this.#ended.keys();
    if (this.#ended.size > this.#maxLeases) this.#ended.delete(oldest);
  }

  /** Forgets calls whose lease was over at `untilMs`. */
  forgetEnded(untilMs: number): void {
    for (const [call, { atMs }] of this.#ended) {
      if (atMs > untilMs) return;
      this.#ended.delete(call);
    }
  }

  /** Iterates over the live leases, oldest first. */
  [Symbol.iterator](): Iterator<Lease> {
    return this.#leases.values();
  }

  /**
   * Checks the leases and that each can be found in every way.
   *
   * @throws {Error} with what does not hold.
   */
  checkIntegrity(): void {
    this.#expiry.checkIntegrity();
    if (this.#expiry.size !== this.#leases.size || this.#calls.size !== this.#leases.size) {
      throw new Error(
        `Lease book is broken: leases ${this.#leases.size}, with an expiry ${this.#expiry.size}, with a call ${this.#calls.size}`,
      );
    }
    for (const lease of this) {
      lease.checkIntegrity();
      this.expiryOf(lease);
    }
  }

  /** Another one for each lease, and most likely for each incarnation of this member. */
  #stamp(lease: number): number {
    return (this.#stampSeed & 0x1fffff) * 2 ** 32 + ((lease ^ this.#stampSeed) >>> 0);
  }
}

function callKey({ incarnation }: MemberIdentity, call: number): string {
  return `${incarnation}/${call}`;
}

/** FNV-1a. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193) >>> 0;
  return value;
}
