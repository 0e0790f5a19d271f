/**
 * The borrowing side of a home: reserves room at others, keeps it, gives it back.
 *
 * Reservation comes before data: a sequence gets slots only after every creditor it was placed on has granted them. What a
 * creditor refuses is asked of others once; then the demand is refused and comes again later.
 *
 * @module
 */
import type { NamedClusterView } from "../../scheduler/gmanager/planner_view.ts";
import type { BorrowedSlot } from "../../scheduler/lending/borrowed.ts";
import type { ClusterMemory, MemoryDemand } from "../../scheduler/lending/cluster_memory.ts";
import type { MemoryPolicyHost, Placement } from "../../scheduler/memory_policy.ts";
import type { KvFormat, MemberCard } from "../../scheduler/protocol/member.ts";
import type { ControlMessage, SlotRun } from "../../scheduler/protocol/messages.ts";
import type { ClusterView } from "../../plugins/types.ts";
import { slotRuns } from "./attention_client.ts";
import type { Counters } from "./counters.ts";
import type { Answer, NoAnswer, Peers } from "./peers.ts";
import type { MemberPorts } from "./ports.ts";

/** Makes a {@linkcode Borrower}. */
export interface BorrowerOptions {
  /** Outside. */
  readonly ports: MemberPorts;
  /** Links. */
  readonly peers: Peers;
  /** Counters. */
  readonly counters: Counters;
  /** The scheduler's memory. */
  readonly memory: ClusterMemory;
  /** Places. */
  readonly policy: MemoryPolicyHost;
  /** What is known of the cluster. */
  readonly view: () => NamedClusterView;
  /** Format of the KV. */
  readonly format: KvFormat;
  /** Name of this member. */
  readonly self: string;
  /** Time in which an answer must come, ms. */
  readonly callMs: number;
  /** Slots are gone: everything that uses them must hear of it. */
  readonly onLost: (
    incarnation: string,
    options: { readonly leases?: ReadonlySet<number>; readonly reason: string },
  ) => void;
  /** Something has changed that may let a sequence go on. */
  readonly onChange: () => void;
}

/** Part of a lease's life after which it is not used any more without a renewal: the creditor's clock may run ahead. */
const SAFE_SHARE = 0.8;
/** Time for which what others have is taken as measured, ms. */
const REACH_MS = 100;
/** Times a demand is placed before it is refused. */
const ATTEMPTS = 2;

/** Slots for one sequence, being gathered. */
interface Gathering {
  readonly key: number;
  readonly segments: number;
  readonly slots: (readonly BorrowedSlot[])[];
  readonly refusers: Set<string>;
  readonly done: (slots: readonly BorrowedSlot[] | undefined) => void;
  attempts: number;
  open: number;
  failed: boolean;
}

/** Everything a home does to have room at others. */
export class Borrower {
  readonly #options: BorrowerOptions;
  readonly #asked = new Set<number>();
  /** Time until which a lease is safe to use, by incarnation and lease. */
  readonly #safeUntil = new Map<string, Map<number, number>>();
  /** Runs to give back that the creditor has not confirmed. */
  readonly #releases = new Map<string, SlotRun[]>();

  #room = { atMs: -Infinity, reach: 0, soon: 0, capacity: 0 };

  /** Borrows for the sequences of one scheduler. */
  constructor(options: BorrowerOptions) {
    this.#options = options;
  }

  /** Answers the scheduler's demands. Call it before steps and when something has changed. */
  work(): void {
    for (const demand of this.#options.memory.demands()) {
      const { sequence } = demand;
      if (this.#asked.has(sequence)) continue;
      this.#asked.add(sequence);
      this.reserve(demand, (slots) => {
        this.#asked.delete(sequence);
        if (slots === undefined) this.#options.memory.refuse(sequence);
        else this.#options.memory.grant(sequence, slots);
        this.#options.onChange();
      });
    }
  }

  /**
   * Gathers slots for a demand; `to` names the one creditor that may give them. `done` is called once, maybe at once:
   * with all of them, or with none.
   */
  reserve(demand: MemoryDemand, done: Gathering["done"], to?: string): void {
    const gathering: Gathering = {
      key: demand.sequence,
      segments: demand.segments,
      slots: [],
      refusers: new Set(),
      done,
      attempts: 0,
      open: 0,
      failed: false,
    };
    if (to === undefined) return this.#place(gathering, demand);
    gathering.attempts = ATTEMPTS;
    const card = this.#options.peers.named(to)?.peer;
    if (card === undefined) return done(undefined);
    this.#ask(gathering, demand, [{ card, segments: demand.segments }]);
  }

  /** Slots that the scheduler does not need any more. */
  release(slots: readonly BorrowedSlot[]): void {
    const byCreditor = Map.groupBy(slots, ({ creditor }) => creditor.incarnation);
    for (const [incarnation, given] of byCreditor) {
      const runs = this.#releases.get(incarnation) ?? [];
      runs.push(...slotRuns(given));
      this.#releases.set(incarnation, runs);
      this.#sendReleases(incarnation);
    }
  }

  /** Renews what is in use, repeats releases that were not confirmed, drops what was not renewed in time. */
  tick(): void {
    const { memory, peers, ports, callMs } = this.#options;
    for (const [incarnation, slots] of memory.borrowed()) {
      const leases = [...new Set(slots.map(({ lease }) => lease))];
      const sentMs = ports.now();
      peers.ask(incarnation, { kind: "renew", call: peers.nextCall(), leases }, {
        timeoutMs: callMs,
        done: (answer) => this.#renewed(incarnation, { leases, sentMs, answer }),
      });
      const late = leases.filter((lease) => (this.#safeUntil.get(incarnation)?.get(lease) ?? Infinity) < sentMs);
      if (late.length > 0) {
        this.#options.onLost(incarnation, { leases: new Set(late), reason: "its leases were not renewed in time" });
      }
    }
    for (const incarnation of this.#releases.keys()) this.#sendReleases(incarnation);
    if (this.#asked.size === 0) this.#prune();
  }

  /** A creditor is gone: nothing is to be kept or given back there. */
  forget(incarnation: string): void {
    this.#safeUntil.delete(incarnation);
    this.#releases.delete(incarnation);
  }

  /** Creditors with unconfirmed releases. */
  get releasing(): number {
    return this.#releases.size;
  }

  /** Segments that could be borrowed now: what others lend, as far as the policy would place a sequence on them. */
  get reach(): number {
    return this.#measured().reach;
  }

  /** The same, once newcomers that fill gently go on to lend. */
  get soon(): number {
    return this.#measured().soon;
  }

  /** The same, once every sequence that has something at those who lend has ended. */
  get capacity(): number {
    return this.#measured().capacity;
  }

  #measured(): { readonly reach: number; readonly soon: number; readonly capacity: number } {
    const now = this.#options.ports.now();
    if (now - this.#room.atMs >= REACH_MS) {
      const view = this.#view(new Set());
      const { lendableSegments, lentSegments, ownSegments } = view.members;
      const filled = lendableSegments.map((segments, index) => segments + view.fillingSegments[index]);
      const idle = filled.map((segments, index) => segments + lentSegments[index] + ownSegments[index]);
      const placed = (lendable: Int32Array) =>
        this.#mostPlaced({ ...view, members: { ...view.members, lendableSegments: lendable } });
      this.#room = { atMs: now, reach: placed(lendableSegments), soon: placed(filled), capacity: placed(idle) };
    }
    return this.#room;
  }

  /** Segments that the policy would place in all. */
  #mostPlaced(view: ClusterView): number {
    const { usable, lendableSegments } = view.members;
    const lendable = lendableSegments.reduce(
      (sum, segments, index) => usable[index] === 1 && index !== view.self ? sum + segments : sum,
      0,
    );
    // A policy may have reasons to place less than all there is.
    for (let segments = lendable; segments > 0; segments = Math.floor(segments / 2)) {
      const tokens = segments * view.segmentTokens;
      const placed = this.#options.policy.place({ segments, tokens, maxTokens: tokens, localSegments: 0 }, view);
      if (placed.length > 0) return segments;
    }
    return 0;
  }

  /** What is known of the cluster; members that refused or are not reached are not usable. */
  #view(refusers: ReadonlySet<string>): NamedClusterView {
    const { peers, view: viewOf } = this.#options;
    const view = viewOf();
    const usable = view.members.usable.map((was, index) => {
      const name = view.members.name[index];
      return index !== view.self && (refusers.has(name) || peers.named(name) === undefined) ? 0 : was;
    });
    return { ...view, members: { ...view.members, usable } };
  }

  #place(gathering: Gathering, demand: MemoryDemand): void {
    const { policy, peers } = this.#options;
    gathering.attempts++;
    const view = this.#view(gathering.refusers);
    const { members } = view;
    const placements = policy.place(demand, view);
    const asks = placements.map(({ member, segments }: Placement) => ({
      card: peers.named(members.name[member])?.peer,
      segments,
    })).filter((ask): ask is { card: MemberCard; segments: number } => ask.card !== undefined);
    if (asks.reduce((sum, { segments }) => sum + segments, 0) < demand.segments) return this.#fail(gathering);
    this.#ask(gathering, demand, asks);
  }

  #ask(
    gathering: Gathering,
    demand: MemoryDemand,
    asks: readonly { readonly card: MemberCard; readonly segments: number }[],
  ): void {
    const { peers, ports, callMs, format, self } = this.#options;
    gathering.open = asks.length;
    gathering.slots.length = 0;
    gathering.failed = false;
    for (const [index, { card, segments }] of asks.entries()) {
      const call = peers.nextCall();
      const sentMs = ports.now();
      const message: ControlMessage = {
        kind: "try-move-kvcache",
        call,
        sequence: `${self}/${demand.sequence}`,
        segments,
        format,
      };
      peers.ask(card.incarnation, message, {
        timeoutMs: callMs,
        done: (answer) => {
          gathering.open--;
          if (answer.kind === "granted" && answer.run.count === segments) {
            const { run, ttlMs } = answer;
            this.#keep(card.incarnation, run.lease, sentMs + SAFE_SHARE * ttlMs);
            gathering.slots[index] = slotsOf(card, run);
          } else {
            gathering.failed = true;
            gathering.refusers.add(card.name);
          }
          if (gathering.open === 0) this.#gathered(gathering, demand);
        },
      });
    }
    if (asks.length === 0) this.#fail(gathering);
  }

  #gathered(gathering: Gathering, demand: MemoryDemand): void {
    const slots = gathering.slots.flat();
    if (!gathering.failed && slots.length === gathering.segments) {
      this.#options.counters.add("segments_reserved", slots.length);
      return gathering.done(slots);
    }
    this.release(slots);
    if (gathering.attempts < ATTEMPTS) this.#place(gathering, demand);
    else this.#fail(gathering);
  }

  #fail(gathering: Gathering): void {
    this.#options.counters.add("reservations_refused");
    gathering.done(undefined);
  }

  #keep(incarnation: string, lease: number, untilMs: number): void {
    let leases = this.#safeUntil.get(incarnation);
    if (leases === undefined) this.#safeUntil.set(incarnation, leases = new Map());
    leases.set(lease, untilMs);
  }

  #renewed(
    incarnation: string,
    renewal: { readonly leases: readonly number[]; readonly sentMs: number; readonly answer: Answer | NoAnswer },
  ): void {
    const { answer, leases, sentMs } = renewal;
    if (answer.kind !== "renewed") return;
    const dead = new Set(answer.dead);
    for (const lease of leases) {
      if (dead.has(lease)) this.#safeUntil.get(incarnation)?.delete(lease);
      else this.#keep(incarnation, lease, sentMs + SAFE_SHARE * answer.ttlMs);
    }
    if (dead.size > 0) {
      this.#options.onLost(incarnation, { leases: dead, reason: "it does not know the leases any more" });
    }
  }

  /** Forgets leases that nothing uses any more. */
  #prune(): void {
    const borrowed = this.#options.memory.borrowed();
    for (const [incarnation, leases] of this.#safeUntil) {
      const used = new Set(borrowed.get(incarnation)?.map(({ lease }) => lease));
      for (const lease of leases.keys()) if (!used.has(lease)) leases.delete(lease);
      if (leases.size === 0) this.#safeUntil.delete(incarnation);
    }
  }

  #sendReleases(incarnation: string): void {
    const { peers, callMs } = this.#options;
    const runs = [...this.#releases.get(incarnation) ?? []];
    if (runs.length === 0 || peers.link(incarnation) === undefined) return;
    peers.ask(incarnation, { kind: "release", call: peers.nextCall(), runs }, {
      timeoutMs: callMs,
      done: (answer) => {
        if (answer.kind !== "released") return;
        const left = (this.#releases.get(incarnation) ?? []).filter((run) => !runs.includes(run));
        if (left.length > 0) this.#releases.set(incarnation, left);
        else this.#releases.delete(incarnation);
      },
    });
  }
}

function slotsOf({ name, incarnation }: MemberCard, run: SlotRun): BorrowedSlot[] {
  const creditor = { name, incarnation };
  return Array.from({ length: run.count }, (_, i) => ({
    creditor,
    lease: run.lease,
    stamp: run.stamp,
    slot: run.from + i,
  }));
}
