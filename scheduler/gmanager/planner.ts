/**
 * Turns what the gManager knows and what the memory policy proposes into orders for homes.
 *
 * @module
 */
import type { MemoryPolicyHost, PlannedMove } from "../memory_policy.ts";
import type { MemberStatus, MoveReport } from "../protocol/messages.ts";
import { type ClusterKnowledge, clusterView, homeOf, type NamedClusterView } from "./planner_view.ts";

export { type ClusterKnowledge, clusterView, type NamedClusterView };

/** What a {@linkcode MovePlanner} needs. */
export interface MovePlannerOptions {
  /** Policy that proposes. */
  readonly policy: Pick<MemoryPolicyHost, "move">;
  /** Monotonic clock, ms. */
  readonly now: () => number;
  /** Time from the end of a move until its sequence is moved again, ms. @default {15000} */
  readonly pauseMs?: number;
  /** Most moves under way that a member gives or takes. @default {2} */
  readonly memberMoves?: number;
  /** Time after which an order without result counts as failed, ms. @default {60000} */
  readonly expiryMs?: number;
  /** Time from the end of a move until its gain is measured, ms. @default {5000} */
  readonly settleMs?: number;
  /** Ended moves that are remembered for the report. @default {32} */
  readonly history?: number;
}

/** An order to the home of a sequence. */
export interface MoveOrder {
  /** Unique in this planner. */
  readonly id: number;
  /** Member that carries it out. */
  readonly home: string;
  /** Sequence, `HOME/HANDLE`. */
  readonly sequence: string;
  /** The lowest so many segments that lie on `from`. */
  readonly segments: number;
  /** Member that holds them. */
  readonly from: string;
  /** Member that takes them. */
  readonly to: string;
  /** Tokens a second gained over the pair, as the policy predicts it. */
  readonly predictedGain?: number;
}

interface Ordered {
  readonly order: MoveOrder;
  readonly orderedMs: number;
  /** Tokens a second over the members concerned, before. */
  readonly before: number;
  state: MoveReport["state"];
  /** Segments that were moved. */
  moved: number;
  endedMs: number;
  measuredGain?: number;
}

/**
 * Plans moves with hysteresis: a sequence is not moved again within `pauseMs`, no member gives or takes more than
 * `memberMoves` at once, and suspects and leaving members are given nothing. Soft state only: a new planner starts empty.
 */
export class MovePlanner {
  readonly #options: Required<MovePlannerOptions>;
  #orders: Ordered[] = [];
  #nextId = 1;

  /** Makes a planner without orders. */
  constructor(options: MovePlannerOptions) {
    this.#options = { pauseMs: 15_000, memberMoves: 2, expiryMs: 60_000, settleMs: 5_000, history: 32, ...options };
  }

  /** Orders worth giving now; each counts as under way until {@linkcode MovePlanner.ended}, its expiry, or the end of a member. */
  plan(knowledge: Omit<ClusterKnowledge, "self">): readonly MoveOrder[] {
    this.observe(knowledge.members);
    const view = clusterView(knowledge);
    const given: MoveOrder[] = [];
    for (const move of this.#options.policy.move(view)) {
      const order = this.#order(move, { view, members: knowledge.members });
      if (order !== undefined) given.push(order);
    }
    return given;
  }

  /** Books the result of an order; unknown and ended ones are let be. */
  ended(id: number, { moved }: { readonly moved: number }): void {
    const found = this.#orders.find(({ order, state }) => order.id === id && state === "copying");
    if (found !== undefined) this.#end(found, { state: moved > 0 ? "done" : "failed", moved });
  }

  /** Takes in the members as they are now: fails orders whose members are gone, and measures what ended moves have gained. */
  observe(members: readonly MemberStatus[]): void {
    const nowMs = this.#options.now();
    const names = new Set(members.map(({ card }) => card.name));
    for (const ordered of this.#orders) {
      const { order, orderedMs } = ordered;
      const gone = concerned(order).some((name) => !names.has(name));
      if (ordered.state === "copying") {
        if (gone || nowMs - orderedMs >= this.#options.expiryMs) this.#end(ordered, { state: "failed", moved: 0 });
      } else if (ordered.state === "done" && ordered.measuredGain === undefined && !gone) {
        if (nowMs - ordered.endedMs >= this.#options.settleMs) {
          ordered.measuredGain = throughput(order, members) - ordered.before;
        }
      }
    }
  }

  /** Orders under way and lately ended, oldest first, with predicted and measured gain. */
  report(): readonly MoveReport[] {
    return this.#orders.map(({ order, state, moved, measuredGain }) => ({
      sequence: order.sequence,
      from: order.from,
      to: order.to,
      segments: state === "done" ? moved : order.segments,
      state,
      ...(order.predictedGain === undefined ? {} : { predictedGain: order.predictedGain }),
      ...(measuredGain === undefined ? {} : { measuredGain }),
    }));
  }

  #order(
    move: PlannedMove,
    { view, members }: { readonly view: NamedClusterView; readonly members: readonly MemberStatus[] },
  ): MoveOrder | undefined {
    const sequence = view.sequenceNames[move.sequence];
    const from = view.members.name[move.from];
    const to = view.members.name[move.to];
    const home = homeOf(sequence);
    const stateOf = (name: string) => members.find(({ card }) => card.name === name)?.state;
    // A leaving member gets rid of what it holds, and a leaving home may still give orders to others.
    if (stateOf(to) !== "alive" || stateOf(from) === "suspect" || stateOf(home) === "suspect") return undefined;
    if (this.#rests(sequence) || this.#underWay(from) || this.#underWay(to)) return undefined;
    const { segments, predictedGain } = move;
    const order: MoveOrder = {
      id: this.#nextId++,
      home,
      sequence,
      segments,
      from,
      to,
      ...(predictedGain === undefined ? {} : { predictedGain }),
    };
    const orderedMs = this.#options.now();
    this.#orders.push({ order, orderedMs, before: throughput(order, members), state: "copying", moved: 0, endedMs: 0 });
    return order;
  }

  /** Whether a sequence is on the move, or was too lately. */
  #rests(sequence: string): boolean {
    const nowMs = this.#options.now();
    return this.#orders.some(({ order, state, endedMs }) =>
      order.sequence === sequence && (state === "copying" || nowMs - endedMs < this.#options.pauseMs)
    );
  }

  /** Whether a member gives and takes as much as it may. */
  #underWay(member: string): boolean {
    const moves = this.#orders.filter(({ order, state }) =>
      state === "copying" && (order.from === member || order.to === member)
    );
    return moves.length >= this.#options.memberMoves;
  }

  #end(ordered: Ordered, { state, moved }: { readonly state: "done" | "failed"; readonly moved: number }): void {
    const nowMs = this.#options.now();
    Object.assign(ordered, { state, moved, endedMs: nowMs });
    // What has ended is kept for the report, and as long as its sequence rests.
    let excess = this.#orders.filter((other) => other.state !== "copying").length - this.#options.history;
    this.#orders = this.#orders.filter(({ state, endedMs }) =>
      state === "copying" || nowMs - endedMs < this.#options.pauseMs || excess-- <= 0
    );
  }
}

/** Members that a move concerns: the pair, and the home where it is neither. */
function concerned({ home, from, to }: MoveOrder): readonly string[] {
  return [...new Set([home, from, to])];
}

function throughput(order: MoveOrder, members: readonly MemberStatus[]): number {
  const names = concerned(order);
  return members.reduce((sum, { card, load }) => names.includes(card.name) ? sum + load.tokensPerSecond : sum, 0);
}
