/**
 * Carries out the moves of a home's segments in the background, while its sequences decode: copy, compare digests, then
 * let the scheduler flip the block tables.
 *
 * @module
 */
import type { BorrowedSlot } from "../../scheduler/lending/borrowed.ts";
import type { ClusterMemory, SegmentMove } from "../../scheduler/lending/cluster_memory.ts";
import type { KvMessage, MoveReport, SlotRun } from "../../scheduler/protocol/messages.ts";
import type { KvStore } from "../device/device.ts";
import type { Counters } from "./counters.ts";
import type { Answer, NoAnswer, Peers } from "./peers.ts";
import { sameRun } from "./lender.ts";
import { SegmentReader, type SegmentStore, SegmentWriter } from "./segment_bytes.ts";
import type { Sender } from "./sender.ts";

/** Makes a {@linkcode Mover}. */
export interface MoverOptions {
  /** Links. */
  readonly peers: Peers;
  /** Counters. */
  readonly counters: Counters;
  /** The scheduler's memory. */
  readonly memory: ClusterMemory;
  /** The device's blocks. */
  readonly store: KvStore;
  /** Sends bytes. */
  readonly sender: Sender;
  /** Blocks of one segment. */
  readonly blocksPerSegment: number;
  /** Name of this member. */
  readonly self: string;
  /** Time in which an answer to a commit or the bytes of a segment must come, ms. */
  readonly timeoutMs: number;
  /** Called when a move has ended. */
  readonly onEnd: () => void;
}

/** Moves under way at a time: one is read and sent while the other is checked. */
const MOST_MOVES = 2;
/** Ended moves kept for reports. */
const KEPT_REPORTS = 16;

interface ActiveMove {
  readonly move: SegmentMove;
  /** Takes the bytes that come for the move's read. */
  reading?: {
    readonly from: string;
    readonly call: number;
    readonly run: SlotRun;
    readonly writer: SegmentWriter;
  };
}

/** Moves segments. */
export class Mover {
  readonly #options: MoverOptions;
  readonly #active = new Map<number, ActiveMove>();
  readonly #reports: MoveReport[] = [];

  /** Starts idle. */
  constructor(options: MoverOptions) {
    this.#options = options;
  }

  /** Moves under way and lately ended. */
  get reports(): readonly MoveReport[] {
    const copying = [...this.#active.values()].map(({ move }) => this.#report(move, "copying"));
    return [...copying, ...this.#reports];
  }

  /** Starts what can be started. Call it after steps and when something has changed. */
  work(): void {
    while (this.#active.size < MOST_MOVES) {
      const move = this.#options.memory.nextMove();
      if (move === undefined) return;
      this.start(move);
    }
  }

  /** Starts a move, beside those of {@linkcode work}. */
  start(move: SegmentMove): void {
    const active: ActiveMove = { move };
    this.#active.set(move.id, active);
    const { from, to } = move;
    if (from.kind === "local" && to.kind === "slot") {
      this.#send(active, to.slot, new SegmentReader(this.#options.store, from.blocks));
    } else if (from.kind === "slot" && to.kind === "local") {
      const writer = new SegmentWriter(this.#options.store, to.blocks);
      this.#fetch(active, from.slot, { writer, done: () => this.#finish(active, true) });
    } else if (from.kind === "slot" && to.kind === "slot") {
      const passing = passingStore(this.#options.store.blockBytes, this.#options.blocksPerSegment);
      this.#fetch(active, from.slot, {
        writer: new SegmentWriter(passing.store, passing.blocks),
        done: () => this.#send(active, to.slot, new SegmentReader(passing.store, passing.blocks)),
      });
    } else {
      this.#finish(active, false);
    }
  }

  /**
   * Bytes on the kv lane. @returns whether they were asked for here: the sender's own calls have numbers of their own, so
   * the slot must fit too.
   */
  takeBytes(from: string, { call, run, offset, bytes }: Extract<KvMessage, { readonly kind: "piece" }>): boolean {
    for (const { reading } of this.#active.values()) {
      if (reading?.call !== call || reading.from !== from || !sameRun(reading.run, run)) continue;
      this.#options.counters.add("bytes_in", bytes.length);
      reading.writer.take(offset, bytes);
      return true;
    }
    return false;
  }

  /** Slots are gone, and the scheduler knows: moves from and to them have failed already. */
  lose(incarnation: string, leases?: ReadonlySet<number>): void {
    for (const active of [...this.#active.values()]) {
      const { from, to } = active.move;
      if (isLost(from, incarnation, leases) || isLost(to, incarnation, leases)) this.#drop(active);
    }
  }

  #send(active: ActiveMove, slot: BorrowedSlot, reader: SegmentReader): void {
    const { peers, sender, timeoutMs } = this.#options;
    const { incarnation } = slot.creditor;
    const call = peers.nextCall();
    const run = runOf(slot);
    sender.send({
      to: incarnation,
      call,
      run,
      reader,
      alive: () => this.#active.has(active.move.id),
      end: (digest) => {
        if (digest === undefined) return this.#finish(active, false);
        peers.expect(incarnation, call, {
          timeoutMs,
          done: (answer: Answer | NoAnswer) => this.#finish(active, answer.kind === "written"),
        });
        peers.tellKv(incarnation, { kind: "commit", call, run, digest });
      },
    });
  }

  #fetch(
    active: ActiveMove,
    slot: BorrowedSlot,
    target: { readonly writer: SegmentWriter; readonly done: () => void },
  ): void {
    const { peers, timeoutMs } = this.#options;
    const { incarnation } = slot.creditor;
    const call = peers.nextCall();
    const run = runOf(slot);
    active.reading = { from: incarnation, call, run, writer: target.writer };
    peers.expect(incarnation, call, {
      timeoutMs,
      done: (answer: Answer | NoAnswer) => {
        active.reading = undefined;
        if (!this.#active.has(active.move.id)) return;
        if (answer.kind === "sent" && target.writer.matches(answer.digest)) target.done();
        else this.#finish(active, false);
      },
    });
    peers.tellKv(incarnation, { kind: "read", call, run });
  }

  #finish(active: ActiveMove, verified: boolean): void {
    const { move } = active;
    if (!this.#active.delete(move.id)) return;
    this.#options.counters.add(verified ? "moves_done" : "moves_failed");
    this.#keep(this.#report(move, verified ? "done" : "failed"));
    this.#options.memory.finishMove(move.id, verified);
    this.#options.onEnd();
  }

  #drop(active: ActiveMove): void {
    if (!this.#active.delete(active.move.id)) return;
    this.#options.counters.add("moves_failed");
    this.#keep(this.#report(active.move, "failed"));
  }

  #keep(report: MoveReport): void {
    this.#reports.unshift(report);
    this.#reports.length = Math.min(this.#reports.length, KEPT_REPORTS);
  }

  #report({ sequence, from, to }: SegmentMove, state: MoveReport["state"]): MoveReport {
    const name = (end: SegmentMove["from"]) => end.kind === "local" ? this.#options.self : end.slot.creditor.name;
    return { sequence: `${this.#options.self}/${sequence}`, from: name(from), to: name(to), segments: 1, state };
  }
}

/** The run that is one slot. */
function runOf({ lease, stamp, slot }: BorrowedSlot): SlotRun {
  return { lease, stamp, from: slot, count: 1 };
}

function isLost(end: SegmentMove["from"], incarnation: string, leases?: ReadonlySet<number>): boolean {
  return end.kind === "slot" && end.slot.creditor.incarnation === incarnation &&
    (leases === undefined || leases.has(end.slot.lease));
}

/** Blocks in this thread's memory between two members. */
function passingStore(blockBytes: number, count: number): { store: SegmentStore; blocks: number[] } {
  const contents: Uint8Array[] = Array.from({ length: count }, () => new Uint8Array(0));
  return {
    store: {
      blockBytes,
      readBlock: (block) => contents[block],
      writeBlock: (block, bytes) => contents[block] = bytes.slice(),
    },
    blocks: Array.from(contents, (_, index) => index),
  };
}
