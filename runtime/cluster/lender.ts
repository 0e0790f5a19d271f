/**
 * The lending side of a member: grants, renewals, releases, bytes in and out of lent segments, calling back.
 *
 * @module
 */
import type { Creditor } from "../../scheduler/lending/creditor.ts";
import type { RevokedLease } from "../../scheduler/lending/creditor_types.ts";
import type { MemberCard } from "../../scheduler/protocol/member.ts";
import type { ControlMessage, KvMessage, SlotRun } from "../../scheduler/protocol/messages.ts";
import type { KvStore } from "../device/device.ts";
import type { Counters } from "./counters.ts";
import type { Peers } from "./peers.ts";
import { SegmentReader, SegmentWriter } from "./segment_bytes.ts";
import type { Sender } from "./sender.ts";

/** Makes a {@linkcode Lender}. */
export interface LenderOptions {
  /** Links. */
  readonly peers: Peers;
  /** Counters. */
  readonly counters: Counters;
  /** Leases. */
  readonly creditor: Creditor;
  /** Holds the blocks; undefined while a holder has no format yet. */
  readonly store: () => KvStore | undefined;
  /** Sends bytes. */
  readonly sender: Sender;
  /** Life of a lease, ms. */
  readonly leaseMs: number;
  /** Whether an operator has it lend nothing. */
  readonly evacuated: () => boolean;
}

/** Incoming segments at a time; the bytes of more are refused. */
const MOST_WRITERS = 256;
/** Ended incoming segments whose commit may be repeated. */
const MOST_COMMITTED = 1024;

/** Messages to a lender on the control lane. */
export type LendingMessage = Extract<ControlMessage, { readonly kind: "try-move-kvcache" | "renew" | "release" }>;

/** Messages to a lender on the kv lane. */
export type LentBytes = Extract<KvMessage, { readonly kind: "piece" | "commit" | "read" }>;

/** Everything a member does for those who borrow from it. */
export class Lender {
  readonly #options: LenderOptions;
  readonly #writers = new Map<string, { readonly run: SlotRun; readonly writer: SegmentWriter }>();
  readonly #committed = new Set<string>();

  /** Lends through a creditor. */
  constructor(options: LenderOptions) {
    this.#options = options;
  }

  /** A debtor asks. */
  take(from: MemberCard, message: LendingMessage, epoch: number): void {
    const { creditor, peers, counters } = this.#options;
    const { call } = message;
    switch (message.kind) {
      case "try-move-kvcache": {
        const granted = this.#options.evacuated()
          ? { kind: "refused", code: "unable", detail: "it is evacuated and lends nothing" } as const
          : creditor.grant(from, { ...message, epoch });
        if (granted.kind === "refused") {
          counters.add(`refused_${granted.code}`);
          peers.tell(from.incarnation, { kind: "refused", call, code: granted.code, detail: granted.detail });
        } else {
          peers.tell(from.incarnation, { kind: "granted", call, run: granted.run, ttlMs: granted.ttlMs });
        }
        break;
      }
      case "renew":
        peers.tell(from.incarnation, {
          kind: "renewed",
          call,
          dead: creditor.renew(from, message.leases),
          ttlMs: this.#options.leaseMs,
        });
        break;
      case "release":
        creditor.release(from, message.runs);
        peers.tell(from.incarnation, { kind: "released", call });
        break;
      default:
        message satisfies never;
    }
  }

  /** A debtor sends or wants bytes. */
  takeBytes(from: MemberCard, message: LentBytes): void {
    switch (message.kind) {
      case "piece":
        this.#write(from, message);
        break;
      case "commit":
        this.#commit(from, message);
        break;
      case "read":
        this.#read(from, message);
        break;
      default:
        message satisfies never;
    }
  }

  /** Looks after leases: what ran out is taken back, what is needed is called back. Call it a few times a second. */
  tick(): void {
    const { creditor, peers } = this.#options;
    this.#tellRevoked(creditor.expire());
    for (const { debtor, segments, withinMs } of creditor.recall()) {
      this.#recall(debtor.incarnation, { segments, withinMs });
    }
    for (const key of this.#writers.keys()) {
      if (peers.link(key.slice(0, key.indexOf("/"))) === undefined) this.#writers.delete(key);
    }
    creditor.settle();
  }

  /** Calls everything back, within `withinMs`. */
  recallAll(withinMs: number): void {
    const { creditor, peers } = this.#options;
    const segments = new Map<string, number>();
    for (const lease of creditor.leases()) {
      segments.set(lease.debtor, (segments.get(lease.debtor) ?? 0) + lease.segments);
    }
    for (const [name, count] of segments) {
      const link = peers.named(name);
      if (link !== undefined) this.#recall(link.peer.incarnation, { segments: count, withinMs });
    }
  }

  /** Ends every lease now. */
  revokeAll(): void {
    const { creditor } = this.#options;
    this.#tellRevoked(creditor.revoke(...creditor.leases().map(({ lease }) => lease)));
    creditor.settle();
  }

  #tellRevoked(revoked: readonly RevokedLease[]): void {
    const { peers, counters } = this.#options;
    const byDebtor = Map.groupBy(revoked, ({ debtor }) => debtor.incarnation);
    for (const [incarnation, leases] of byDebtor) {
      for (const { reason } of leases) counters.add(`leases_${reason}`);
      peers.tell(incarnation, { kind: "revoked", leases: leases.map(({ lease }) => lease) });
    }
  }

  #recall(incarnation: string, wanted: { readonly segments: number; readonly withinMs: number }): void {
    const { peers, counters } = this.#options;
    counters.add("segments_recalled", wanted.segments);
    peers.tell(incarnation, { kind: "recall", call: peers.nextCall(), ...wanted });
  }

  #write(from: MemberCard, { call, run, offset, bytes }: Extract<KvMessage, { readonly kind: "piece" }>): void {
    const { creditor, store: storeOf, counters } = this.#options;
    const store = storeOf();
    const key = `${from.incarnation}/${call}`;
    const touched = creditor.touch(from, run, "write");
    if (touched.kind === "refused" || store === undefined) {
      // The commit says so.
      this.#writers.delete(key);
      return;
    }
    let entry = this.#writers.get(key);
    if (entry === undefined) {
      if (this.#writers.size >= MOST_WRITERS) return;
      entry = { run, writer: new SegmentWriter(store, touched.blocks) };
      this.#writers.set(key, entry);
    }
    if (!sameRun(entry.run, run)) return;
    counters.add("bytes_in", bytes.length);
    entry.writer.take(offset, bytes);
  }

  #commit(from: MemberCard, { call, run, digest }: Extract<KvMessage, { readonly kind: "commit" }>): void {
    const { creditor, peers, counters } = this.#options;
    const key = `${from.incarnation}/${call}`;
    const entry = this.#writers.get(key);
    this.#writers.delete(key);
    if (this.#committed.has(key)) {
      peers.tellKv(from.incarnation, { kind: "written", call });
      return;
    }
    const touched = creditor.touch(from, run, "commit");
    if (touched.kind === "refused") {
      counters.add(`refused_${touched.code}`);
      peers.tellKv(from.incarnation, { kind: "refused", call, code: touched.code, detail: touched.detail });
      return;
    }
    if (entry === undefined || !sameRun(entry.run, run) || !entry.writer.matches(digest)) {
      counters.add("refused_bad_digest");
      const detail = "the bytes that came are not those that were stated";
      peers.tellKv(from.incarnation, { kind: "refused", call, code: "bad_digest", detail });
      return;
    }
    const filled = creditor.fill(from, run);
    if (filled.kind === "refused") {
      peers.tellKv(from.incarnation, { kind: "refused", call, code: filled.code, detail: filled.detail });
      return;
    }
    this.#committed.add(key);
    if (this.#committed.size > MOST_COMMITTED) {
      for (const oldest of this.#committed) {
        this.#committed.delete(oldest);
        break;
      }
    }
    peers.tellKv(from.incarnation, { kind: "written", call });
  }

  #read(from: MemberCard, { call, run }: Extract<KvMessage, { readonly kind: "read" }>): void {
    const { creditor, peers, store: storeOf, counters, sender } = this.#options;
    const store = storeOf();
    const touched = creditor.touch(from, run, "read");
    if (touched.kind === "refused" || store === undefined) {
      const { code, detail } = touched.kind === "refused"
        ? touched
        : { code: "unknown_lease" as const, detail: "nothing was lent here" };
      counters.add(`refused_${code}`);
      peers.tellKv(from.incarnation, { kind: "refused", call, code, detail });
      return;
    }
    const hold = creditor.hold(run);
    sender.send({
      to: from.incarnation,
      call,
      run,
      reader: new SegmentReader(store, touched.blocks),
      alive: () => true,
      end(digest) {
        hold[Symbol.dispose]();
        if (digest !== undefined) peers.tellKv(from.incarnation, { kind: "sent", call, digest });
      },
    });
  }
}

/** Whether two runs are the same slots. */
export function sameRun(a: SlotRun, b: SlotRun): boolean {
  return a.lease === b.lease && a.stamp === b.stamp && a.from === b.from && a.count === b.count;
}
