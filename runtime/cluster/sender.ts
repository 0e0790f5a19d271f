/**
 * Sends the bytes of segments in the background: a few pieces at a turn, no more than a link takes without a queue, and no
 * more a second than leaves decoding alone.
 *
 * @module
 */
import type { KvMessage } from "../../scheduler/protocol/messages.ts";
import type { SlotRun } from "../../scheduler/protocol/messages.ts";
import type { Counters } from "./counters.ts";
import type { Peers } from "./peers.ts";
import type { MemberPorts } from "./ports.ts";
import type { SegmentReader } from "./segment_bytes.ts";

/** Makes a {@linkcode Sender}. */
export interface SenderOptions {
  /** Outside. */
  readonly ports: MemberPorts;
  /** Links. */
  readonly peers: Peers;
  /** Counters. */
  readonly counters: Counters;
  /** Most bytes a second while steps run. */
  readonly bytesPerSecond: number;
  /** Whether steps run: without, only the links set the pace. */
  readonly busy: () => boolean;
}

/** Bytes that may wait on a link. */
const MOST_BACKLOG = 512 * 1024;
/** Bytes sent in one turn of the event loop. */
const TURN_BYTES = 256 * 1024;
/** Pause when nothing may be sent, ms. */
const PAUSE_MS = 1;
/** Savings of unused rate, ms: a pause longer than that is not made up for. */
const BURST_MS = 20;

/** A segment to send. */
export interface Transfer {
  /** Incarnation of the peer. */
  readonly to: string;
  /** Call that its pieces carry. */
  readonly call: number;
  /** Slot that its pieces carry. */
  readonly run: SlotRun;
  /** Bytes. */
  readonly reader: SegmentReader;
  /** Whether the transfer still makes sense; asked at each turn. */
  readonly alive: () => boolean;
  /** Called once: with the digest when all pieces were sent, without when they were not. */
  readonly end: (digest: string | undefined) => void;
}

/** All outgoing bytes of a member, one segment after the other. */
export class Sender {
  readonly #options: SenderOptions;
  readonly #queue: Transfer[] = [];
  #scheduled = false;
  #spentUntilMs = 0;

  /** Starts idle. */
  constructor(options: SenderOptions) {
    this.#options = options;
  }

  /** Whether something is still to be sent. */
  get sending(): boolean {
    return this.#queue.length > 0;
  }

  /** Sends a segment once those before it are sent. */
  send(transfer: Transfer): void {
    this.#queue.push(transfer);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled || this.#queue.length === 0) return;
    this.#scheduled = true;
    this.#options.ports.defer(() => this.#turn());
  }

  #turn(): void {
    this.#scheduled = false;
    const { ports, peers, busy } = this.#options;
    const transfer = this.#queue[0];
    const link = peers.link(transfer.to);
    if (link === undefined || !transfer.alive()) return this.#end(undefined);
    const now = ports.now();
    if (link.kvBacklog > MOST_BACKLOG || busy() && this.#spentUntilMs > now) {
      this.#scheduled = true;
      ports.timer(PAUSE_MS, () => this.#turn());
      return;
    }
    let sent = 0;
    while (sent < TURN_BYTES) {
      const piece = transfer.reader.next();
      if (piece === undefined) return this.#end(transfer.reader.digest);
      const { call, run } = transfer;
      const message: KvMessage = { kind: "piece", call, run, ...piece };
      if (!peers.tellKv(transfer.to, message)) return this.#end(undefined);
      sent += piece.bytes.length;
      this.#options.counters.add("bytes_out", piece.bytes.length);
      const costMs = piece.bytes.length / this.#options.bytesPerSecond * 1000;
      this.#spentUntilMs = Math.max(this.#spentUntilMs, now - BURST_MS) + costMs;
    }
    this.#schedule();
  }

  #end(digest: string | undefined): void {
    this.#queue.shift()?.end(digest);
    this.#schedule();
  }
}
