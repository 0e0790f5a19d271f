/**
 * The memory that a member lends: blocks, leases, attention over them. A holder's is bound to the format of the first
 * cluster it meets, an instance's is its device's.
 *
 * @module
 */
import type { BlockPool } from "../../scheduler/block_pool.ts";
import type { EpochGuard } from "../../scheduler/gmanager/epoch_guard.ts";
import { Creditor } from "../../scheduler/lending/creditor.ts";
import type { RefusedFormat } from "../../scheduler/lending/creditor_types.ts";
import { LendLimit } from "../../scheduler/lending/lend_limit.ts";
import type { PeerLink } from "../../scheduler/links/link.ts";
import type { KvFormat, MemberCard, MemberIdentity } from "../../scheduler/protocol/member.ts";
import type { AttendRequest } from "../../scheduler/protocol/messages.ts";
import type { KvStore } from "../device/device.ts";
import { AttentionServer } from "./attention_server.ts";
import type { Counters } from "./counters.ts";
import { Lender, type LendingMessage, type LentBytes } from "./lender.ts";
import type { ClusterTimings } from "./options.ts";
import type { Peers } from "./peers.ts";
import type { MemberPorts } from "./ports.ts";
import type { Sender } from "./sender.ts";

/** A pool of blocks and where their bytes are. */
export interface BoundMemory {
  /** Bytes. */
  readonly store: KvStore;
  /** Blocks. */
  readonly pool: BlockPool;
}

/** KV memory alone. */
export interface HolderParts {
  /** Kind. */
  readonly kind: "holder";
  /**
   * Binds the memory to a format; `done` is told the store and its pool, or why not. A store of another format is gone
   * when this is called.
   */
  readonly bind: (format: KvFormat, done: (bound: BoundMemory | Error) => void) => void;
  /** A pool to begin with; nothing is lent from it. */
  readonly emptyPool: BlockPool;
}

/** Makes {@linkcode LentMemory}. */
export interface LentMemoryOptions {
  /** Outside. */
  readonly ports: MemberPorts;
  /** Links. */
  readonly peers: Peers;
  /** Counters. */
  readonly counters: Counters;
  /** Who lends. */
  readonly self: MemberIdentity;
  /** Highest epoch seen. */
  readonly epochs: EpochGuard;
  /** Sends bytes. */
  readonly sender: Sender;
  /** Times. */
  readonly timings: ClusterTimings;
  /** Most of the blocks that may be lent, 0 to 1. @default {all but a reserve that follows recent own use} */
  readonly lendShare?: number;
  /** Tokens of one segment. */
  readonly segmentTokens: number;
  /** The memory: an instance's own, or what a holder binds. */
  readonly memory: HolderParts | BoundMemory & { readonly kind: "own"; readonly format: KvFormat };
  /** Called when a holder has bound its memory. */
  readonly onBound: () => void;
}

/** Lends. */
export class LentMemory {
  /** Leases. */
  readonly creditor: Creditor;
  readonly #options: LentMemoryOptions;
  readonly #limit: LendLimit;
  readonly #lender: Lender;
  readonly #attention: AttentionServer;
  #bound: BoundMemory | undefined;
  #format: KvFormat | undefined;
  #binding = false;
  #evacuated = false;

  /** Lends nothing yet. */
  constructor(options: LentMemoryOptions) {
    const { ports, peers, counters, self, epochs, sender, timings, lendShare, segmentTokens, memory } = options;
    this.#options = options;
    if (memory.kind === "own") {
      this.#bound = memory;
      this.#format = memory.format;
    }
    // A holder's units are known once it is bound.
    const blocksPerSegment = memory.kind === "own" ? segmentTokens / memory.store.layout.blockTokens : 1;
    // Memory that nobody uses here needs no reserve.
    const share = lendShare ?? (memory.kind === "own" ? undefined : 1);
    this.#limit = new LendLimit({
      now: ports.now,
      cap: share === undefined ? undefined : { kind: "share", share },
      unitBlocks: blocksPerSegment,
      recallMs: timings.recallMs,
    });
    this.creditor = new Creditor({
      pool: memory.kind === "own" ? memory.pool : memory.emptyPool,
      blocksPerSegment,
      format: () => this.#format,
      acceptFormat: memory.kind === "own" ? undefined : (format) => this.#accept(format),
      now: ports.now,
      ttlMs: timings.leaseMs,
      fill: { newcomerMs: timings.newcomerMs },
      limit: this.#limit,
      self,
      epochs,
    });
    this.#lender = new Lender({
      peers,
      counters,
      creditor: this.creditor,
      store: () => this.#bound?.store,
      sender,
      leaseMs: timings.leaseMs,
      evacuated: () => this.#evacuated,
    });
    this.#attention = new AttentionServer({
      store: () => this.#bound?.store,
      creditor: this.creditor,
      segmentTokens,
    });
  }

  /** Format of the blocks; undefined while a holder has none. */
  get format(): KvFormat | undefined {
    return this.#format;
  }

  /** The blocks; undefined while a holder has none. */
  get pool(): BlockPool | undefined {
    return this.#bound?.pool;
  }

  /** Blocks of the format that one block of the pool is: others count in those. */
  get formatBlocks(): number {
    if (this.#bound === undefined || this.#format === undefined) return 1;
    return this.#bound.store.layout.blockTokens / this.#format.blockTokens;
  }

  /** Blocks it would lend now. */
  get lendable(): number {
    return this.#evacuated || this.#bound === undefined ? 0 : this.creditor.lendable;
  }

  /** Blocks it will lend when it may go on: a newcomer pauses between two grants. */
  get filling(): number {
    return this.#evacuated || this.#bound === undefined ? 0 : this.creditor.filling;
  }

  /** Whether others have memory here. */
  get inUse(): boolean {
    return this.creditor.counts.segments > 0;
  }

  /** Answers an attention request. */
  attend(link: PeerLink, request: AttendRequest): void {
    const answer = this.#attention.answer(link.peer, request);
    this.#options.counters.add(answer.kind === "partials" ? "attention_served" : `refused_${answer.code}`);
    link.attention.send(answer);
  }

  /** A debtor asks. */
  take(from: MemberCard, message: LendingMessage, epoch: number): void {
    this.#lender.take(from, message, epoch);
  }

  /** A debtor sends or wants bytes. */
  takeBytes(from: MemberCard, message: LentBytes): void {
    this.#lender.takeBytes(from, message);
  }

  /** Looks after leases, with the blocks that own sequences wait for. Call it a few times a second. */
  tick(waitingBlocks: number): void {
    this.#limit.observe({ own: this.pool?.counts.owned ?? 0, waitingBlocks });
    this.#lender.tick();
  }

  /** A peer has memory of this format: a holder without one prepares for it. */
  meet(format: KvFormat): void {
    if (this.#format === undefined) this.#bind(format);
  }

  /** Calls everything back and lends nothing more, or ends that. */
  evacuate(undo: boolean): void {
    this.#evacuated = !undo;
    if (!undo) this.#lender.recallAll(this.#options.timings.recallMs);
  }

  /** Calls everything back for good. */
  leave(timeoutMs: number): void {
    this.creditor.leave();
    this.#lender.recallAll(timeoutMs);
  }

  /** Takes back whatever is still lent. */
  revokeAll(): void {
    this.#lender.revokeAll();
  }

  /** A holder's creditor is asked for a format that its memory is not bound to, while nothing is lent. */
  #accept(format: KvFormat): RefusedFormat {
    this.#bind(format);
    return { code: "unable", detail: "its memory is being prepared for this format; ask again" };
  }

  #bind(format: KvFormat): void {
    const { memory, ports, onBound } = this.#options;
    if (memory.kind === "own" || this.#binding) return;
    this.#binding = true;
    this.#bound = undefined;
    this.#format = undefined;
    memory.bind(format, (bound) => {
      this.#binding = false;
      if (bound instanceof Error) {
        ports.log(`cannot hold KV of this cluster: ${bound.message}`);
        return;
      }
      this.#bound = bound;
      this.#format = format;
      this.creditor.rebind({
        pool: bound.pool,
        blocksPerSegment: format.segmentTokens / bound.store.layout.blockTokens,
      });
      onBound();
    });
  }
}
