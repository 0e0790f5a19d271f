/**
 * Brings segments of a home's sequences elsewhere: on an order, or because a creditor wants its memory back.
 *
 * @module
 */
import type { ClusterMemory, MemoryDemand } from "../../scheduler/lending/cluster_memory.ts";
import type { MemoryPolicyHost } from "../../scheduler/memory_policy.ts";
import type { Borrower } from "./borrower.ts";
import type { Mover } from "./mover.ts";
import { type MoveOrder, type MoveResult, parseSequence } from "./orders.ts";
import type { Peers } from "./peers.ts";
import type { MemberPorts } from "./ports.ts";

/** Makes a {@linkcode Relocation}. */
export interface RelocationOptions {
  /** Outside. */
  readonly ports: MemberPorts;
  /** Links. */
  readonly peers: Peers;
  /** The scheduler's memory. */
  readonly memory: ClusterMemory;
  /** Reserves room. */
  readonly borrower: Borrower;
  /** Moves bytes. */
  readonly mover: Mover;
  /** Says what is given back first. */
  readonly policy: MemoryPolicyHost;
  /** Name of this member. */
  readonly self: string;
  /** Called when a sequence got room. */
  readonly onChange: () => void;
}

/** Moves segments on purpose. */
export class Relocation {
  readonly #options: RelocationOptions;

  /** Moves for one home. */
  constructor(options: RelocationOptions) {
    this.#options = options;
  }

  /** Carries out an order to move segments of a sequence that is at home here. */
  order(order: MoveOrder, done: (result: MoveResult) => void): void {
    const { memory, peers, self } = this.#options;
    const name = parseSequence(order.sequence);
    const placed = memory.placements().find(({ sequence }) => name?.home === self && sequence === name.handle);
    if (placed === undefined) {
      return done({ moved: 0, problem: `wanted a sequence of ${self} with KV, got ${order.sequence}` });
    }
    const demand = demandOf({ sequence: placed.sequence, segments: order.segments, tokens: placed.length });
    if (order.from === self) return this.#lendOut(order, demand, done);
    const incarnation = peers.named(order.from)?.peer.incarnation;
    const held = incarnation === undefined ? [] : memory.held(incarnation);
    const sources = held.filter(({ sequence }) => sequence === placed.sequence).slice(0, order.segments);
    if (sources.length === 0) {
      return done({ moved: 0, problem: `wanted segments of ${order.sequence} on ${order.from}, got none` });
    }
    if (order.to === self) {
      const moved = sources.filter(({ slot }) => this.#start(memory.relocate(slot))).length;
      return done({ moved, problem: moved === 0 ? "no room at home" : undefined });
    }
    this.#options.borrower.reserve({ ...demand, segments: sources.length }, (slots) => {
      if (slots === undefined) {
        return done({ moved: 0, problem: `${order.to} does not lend ${sources.length} segments` });
      }
      const unused = slots.filter((slot, index) => !this.#start(memory.relocate(sources[index].slot, slot)));
      this.#options.borrower.release(unused);
      done({ moved: slots.length - unused.length });
    }, order.to);
  }

  /** A creditor wants segments back: they come home where there is room, else they go to others. */
  giveBack(incarnation: string, wanted: number): void {
    const { memory, borrower, policy, ports } = this.#options;
    // Reserved slots without content go back at once.
    const count = wanted - memory.giveBack(incarnation, wanted);
    const held = memory.held(incarnation);
    const now = ports.now();
    const order = policy.evict({
      segments: count,
      length: held.length,
      tokens: Int32Array.from(held, ({ tokens }) => tokens),
      segment: Int32Array.from(held, ({ segment }) => segment),
      shared: Int32Array.from(held, ({ sharers }) => sharers),
      ageMs: Float64Array.from(held, ({ sinceMs }) => now - sinceMs),
    });
    for (const index of order.slice(0, count)) {
      const { slot, sequence, tokens } = held[index];
      if (this.#start(memory.relocate(slot))) continue;
      borrower.reserve(demandOf({ sequence, segments: 1, tokens }), (slots) => {
        if (slots !== undefined && !this.#start(memory.relocate(slot, slots[0]))) borrower.release(slots);
      });
    }
  }

  #lendOut(order: MoveOrder, demand: MemoryDemand, done: (result: MoveResult) => void): void {
    const { memory, borrower, onChange } = this.#options;
    borrower.reserve(demand, (slots) => {
      if (slots === undefined) {
        return done({ moved: 0, problem: `${order.to} does not lend ${order.segments} segments` });
      }
      memory.grant(demand.sequence, slots);
      onChange();
      done({ moved: slots.length });
    }, order.to);
  }

  #start(move: ReturnType<ClusterMemory["relocate"]>): boolean {
    if (move !== undefined) this.#options.mover.start(move);
    return move !== undefined;
  }
}

function demandOf(wanted: Pick<MemoryDemand, "sequence" | "segments" | "tokens">): MemoryDemand {
  return { ...wanted, maxTokens: wanted.tokens, localSegments: 0, reason: "grow" };
}
