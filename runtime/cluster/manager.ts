/**
 * The gManager inside a member: directory and placement map from heartbeats, and orders to move. Nothing else depends on
 * it: without it members serve on with what they know.
 *
 * @module
 */
import type { EpochGuard } from "../../scheduler/gmanager/epoch_guard.ts";
import { GManagerState } from "../../scheduler/gmanager/gmanager_state.ts";
import { type MoveOrder as PlannedOrder, MovePlanner } from "../../scheduler/gmanager/planner.ts";
import { Term } from "../../scheduler/gmanager/term.ts";
import type { MemoryPolicyHost } from "../../scheduler/memory_policy.ts";
import type { MemberIdentity } from "../../scheduler/protocol/member.ts";
import type {
  Heartbeat,
  HeartbeatAck,
  LeaseReport,
  MemberStatus,
  MoveReport,
  PlacementEntry,
} from "../../scheduler/protocol/messages.ts";
import type { ClusterTimings } from "./options.ts";
import type { MoveResult } from "./orders.ts";
import type { MemberPorts } from "./ports.ts";

/** Makes a {@linkcode Manager}. */
export interface ManagerOptions {
  /** Outside. */
  readonly ports: MemberPorts;
  /** The member that carries it. */
  readonly self: MemberIdentity;
  /** Highest epoch that the member has seen. */
  readonly epochs: EpochGuard;
  /** Times. */
  readonly timings: ClusterTimings;
  /** Proposes moves. */
  readonly policy: MemoryPolicyHost;
  /** Tokens of one segment. */
  readonly segmentTokens: number;
}

/** Heartbeats for which a gManager listens before it leads: a predecessor's epoch comes with them. */
const LISTEN_BEATS = 2;

/** A gManager. */
export class Manager {
  readonly #options: ManagerOptions;
  readonly #state: GManagerState;
  readonly #planner: MovePlanner;
  readonly #term: Term;
  readonly #startMs: number;

  /** Starts with nothing, and listens first. */
  constructor(options: ManagerOptions) {
    const { ports, self, epochs, timings, policy } = options;
    this.#options = options;
    this.#startMs = ports.now();
    this.#state = new GManagerState({
      now: ports.now,
      heartbeatMs: timings.heartbeatMs,
      dropMs: 2 * timings.suspectMs,
    });
    this.#planner = new MovePlanner({ policy, now: ports.now });
    this.#term = new Term({ self, guard: epochs, now: ports.now });
  }

  /** Whether members obey it. */
  get leads(): boolean {
    return this.#term.leads;
  }

  /** Members. */
  get directory(): readonly MemberStatus[] {
    return this.#state.directory();
  }

  /** Request placement map. */
  get placements(): readonly PlacementEntry[] {
    return this.#state.placements();
  }

  /** Leases, as their creditors say. */
  get leases(): readonly (LeaseReport & { readonly creditor: string })[] {
    return this.#state.leases();
  }

  /** Moves: ordered ones with their gain, then those that homes made by themselves. */
  get moves(): readonly MoveReport[] {
    return [...this.#planner.report(), ...this.#state.moves()];
  }

  /** Takes a heartbeat. @returns the answer, if it leads. */
  heartbeat(from: MemberIdentity, heartbeat: Heartbeat): HeartbeatAck | undefined {
    this.#lead();
    const outcome = this.#state.accept(from, heartbeat);
    if (outcome.kind === "refused") {
      this.#options.ports.log(`heartbeat of ${from.name} refused: ${outcome.detail}`);
      return undefined;
    }
    return this.leads ? outcome.ack : undefined;
  }

  /** A member has said goodbye. */
  gone(member: MemberIdentity): void {
    this.#state.remove(member);
  }

  /** Orders worth giving now. */
  plan(): readonly PlannedOrder[] {
    this.#lead();
    if (!this.leads || !this.#state.whole) return [];
    const { segmentTokens } = this.#options;
    return this.#planner.plan({ members: this.directory, placements: this.placements, segmentTokens });
  }

  /** What became of an order. */
  moved(order: PlannedOrder, { moved }: MoveResult): void {
    this.#planner.ended(order.id, { moved });
  }

  /** An epoch was heard: it may be a rival's. */
  heard(): void {
    if (this.#term.epoch > 0) this.#term.look();
  }

  /** A member refused an order as stale. */
  refused(epoch: number): void {
    this.#term.refused(epoch);
  }

  #lead(): void {
    const { ports, timings } = this.#options;
    if (this.#term.epoch > 0) {
      this.#term.look();
    } else if (ports.now() - this.#startMs >= LISTEN_BEATS * timings.heartbeatMs) {
      this.#term.claim();
    }
  }
}
