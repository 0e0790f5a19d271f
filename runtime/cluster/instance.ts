/**
 * The side of a member that runs requests: an engine, driven one step a turn, with room at others.
 *
 * @module
 */
import type { NamedClusterView } from "../../scheduler/gmanager/planner_view.ts";
import type { BorrowedSlot } from "../../scheduler/lending/borrowed.ts";
import type { MemoryPolicyHost } from "../../scheduler/memory_policy.ts";
import type { PolicyHost } from "../../scheduler/policy.ts";
import type { KvFormat } from "../../scheduler/protocol/member.ts";
import type { LoadReport, MoveReport, PerformanceReport, PlacementEntry } from "../../scheduler/protocol/messages.ts";
import type { Device } from "../device/device.ts";
import type { Engine } from "../engine/engine.ts";
import type { StepRunner } from "../engine/step_runner.ts";
import { AttentionClient, type StepTiming } from "./attention_client.ts";
import { Borrower } from "./borrower.ts";
import type { Counters } from "./counters.ts";
import { Mover } from "./mover.ts";
import type { ClusterTimings } from "./options.ts";
import type { Peers } from "./peers.ts";
import type { MemberPorts } from "./ports.ts";
import { Probing } from "./probing.ts";
import { Relocation } from "./relocation.ts";
import { Router } from "./router.ts";
import type { Sender } from "./sender.ts";

/** Fitted times of an instance's steps. */
export interface StepModel {
  /** Takes note of a step. */
  observe(step: StepTiming): void;
  /** The fit. */
  report(): PerformanceReport | undefined;
}

/** What an engine needs of the member that it belongs to. */
export interface EngineHooks {
  /** Runs its steps. */
  readonly runner: StepRunner;
  /** Segments that could be borrowed now. */
  readonly reach: () => number;
  /** The same, once newcomers that fill gently go on to lend. */
  readonly soon: () => number;
  /** Segments that could be borrowed if nobody else had anything at those who lend. */
  readonly capacity: () => number;
  /** Slots that no sequence uses any more. */
  readonly onRelease: (slots: readonly BorrowedSlot[]) => void;
}

/** Weights, KV and an engine. */
export interface FullParts {
  /** Kind. */
  readonly kind: "full";
  /** Computes; stays the caller's. */
  readonly device: Device;
  /** Format of its KV. */
  readonly format: KvFormat;
  /** Makes the engine, once. */
  readonly engine: (hooks: EngineHooks) => Engine;
  /** Picks homes. */
  readonly scheduler: PolicyHost;
  /** Most running sequences. */
  readonly maxBatch: number;
  /** Fits step times. */
  readonly model: StepModel;
}

/** Makes an {@linkcode Instance}. */
export interface InstanceOptions {
  /** Outside. */
  readonly ports: MemberPorts;
  /** Links. */
  readonly peers: Peers;
  /** Counters. */
  readonly counters: Counters;
  /** What it has. */
  readonly parts: FullParts;
  /** Name of this member. */
  readonly self: string;
  /** Decides on lending. */
  readonly memoryPolicy: MemoryPolicyHost;
  /** Times. */
  readonly timings: ClusterTimings;
  /** Tokens of one segment. */
  readonly segmentTokens: number;
  /** Sends bytes. */
  readonly sender: Sender;
  /** Multiply-accumulates between two turns of the event loop while a step runs. */
  readonly slice: () => number;
  /** What is known of the cluster. */
  readonly view: () => NamedClusterView;
  /** Whether this member is leaving. */
  readonly leaving: () => boolean;
}

/** Time in which the bytes of a segment must have come, ms. */
const MOVE_MS = 15_000;
/** Pause after a probe, as a multiple of its time. */
const PROBE_PAUSES = 5;
/** Window of the token rate, ms. */
const RATE_MS = 2_000;

/** Runs requests. */
export class Instance {
  /** Its engine. */
  readonly engine: Engine;
  /** Requests between members. */
  readonly router: Router;
  /** Room at others. */
  readonly borrower: Borrower;
  /** Moves. */
  readonly mover: Mover;
  /** Moves on purpose. */
  readonly relocation: Relocation;
  /** Steps. */
  readonly attention: AttentionClient;
  readonly #options: InstanceOptions;
  #stepping = false;
  #turnWanted = false;
  #stopped = false;
  /** Steps to time while there is nothing else to do. */
  #probing: Probing | undefined;
  /** Not before that time. */
  #probeMs = 0;
  #rate = { atMs: 0, tokens: 0, perSecond: 0 };

  /** Makes the engine. */
  constructor(options: InstanceOptions) {
    this.#options = options;
    const { ports, peers, counters, parts, self, timings, segmentTokens, memoryPolicy: policy, view, sender } = options;
    const { device, format } = parts;
    const wake = () => this.wake();
    this.attention = new AttentionClient({
      device,
      ports,
      peers,
      counters,
      partialMs: timings.partialMs,
      slice: options.slice,
      segmentTokens,
      onStep: (step) => parts.model.observe(step),
      onHolderLost: (incarnation, reason) => peers.lose(incarnation, reason),
      onSlotsRefused: (incarnation, leases, reason) => this.lose(incarnation, { leases, reason }),
    });
    this.engine = parts.engine({
      runner: this.attention,
      // The engine asks for the first time when all of this is there.
      reach: () => this.borrower.reach,
      soon: () => this.borrower.soon,
      capacity: () => this.borrower.capacity,
      onRelease: (slots) => this.borrower.release(slots),
    });
    const { memory, pool } = this.engine;
    this.#probing = new Probing({ device, pool, model: parts.model, maxBatch: parts.maxBatch, now: ports.now });
    this.borrower = new Borrower({
      ports,
      peers,
      counters,
      memory,
      policy,
      view,
      format,
      self,
      callMs: timings.callMs,
      onLost: (incarnation, lost) => this.lose(incarnation, lost),
      onChange: wake,
    });
    this.mover = new Mover({
      peers,
      counters,
      memory,
      store: device,
      sender,
      blocksPerSegment: segmentTokens / device.layout.blockTokens,
      self,
      timeoutMs: MOVE_MS,
      onEnd: wake,
    });
    this.relocation = new Relocation({
      ports,
      peers,
      memory,
      borrower: this.borrower,
      mover: this.mover,
      policy,
      self,
      onChange: wake,
    });
    this.router = new Router({
      ports,
      peers,
      counters,
      engine: this.engine,
      policy: parts.scheduler,
      view,
      leaving: options.leaving,
      onWork: wake,
    });
  }

  /** Whether a step is under way. */
  get stepping(): boolean {
    return this.#stepping;
  }

  /** Lets the engine run if it can. */
  wake(): void {
    if (this.#turnWanted || this.#stopped) return;
    this.#turnWanted = true;
    this.#options.ports.defer(() => {
      this.#turnWanted = false;
      this.#turn();
    });
  }

  /** Looks whether what waited for memory can go on. */
  tick(): void {
    if (this.engine.busy && !this.#stepping) this.wake();
  }

  /** Runs no step any more. */
  stop(): void {
    this.#stopped = true;
  }

  /** Slots are gone, all of an incarnation's or some leases'. */
  lose(incarnation: string, lost: { readonly leases?: ReadonlySet<number>; readonly reason: string }): void {
    const { leases, reason } = lost;
    const segments = this.engine.memory.lose(incarnation, leases);
    this.mover.lose(incarnation, leases);
    this.attention.lose(incarnation);
    if (segments === 0) return;
    this.#options.counters.add("segments_lost", segments);
    this.#options.ports.log(`lost ${segments} borrowed segments: ${reason}`);
    this.wake();
  }

  /** A peer is lost with everything that it had and did for this instance. */
  lostPeer(incarnation: string, reason: string): void {
    this.lose(incarnation, { reason });
    this.borrower.forget(incarnation);
    this.router.lost(incarnation);
    this.wake();
  }

  /** Its load. */
  load(): LoadReport {
    const { parts, counters: { values } } = this.#options;
    const { running, waiting, repairs, repairedTokens, lostSteps, generatedTokens } = this.engine.stats();
    return {
      running,
      waiting,
      maxBatch: parts.maxBatch,
      tokensPerSecond: this.#tokensPerSecond(generatedTokens),
      counters: { ...values, repairs, repaired_tokens: repairedTokens, lost_steps: lostSteps },
      performance: parts.model.report(),
    };
  }

  /** Moves under way and lately ended. */
  get moves(): readonly MoveReport[] {
    return this.mover.reports;
  }

  /** Entries of the request placement map. */
  entries(): PlacementEntry[] {
    const { self, parts: { device, format } } = this.#options;
    const formatBlocks = device.layout.blockTokens / format.blockTokens;
    return this.engine.memory.placements().flatMap(({ sequence, length, ranges, pinned }) => {
      const byMember = Map.groupBy(ranges, ({ creditor }) => creditor ?? self);
      return [...byMember].map(([member, held]) => ({
        sequence: `${self}/${sequence}`,
        member,
        blocks: held.reduce((sum, { blocks }) => sum + blocks * formatBlocks, 0),
        local: member === self,
        length,
        ranges: held.map(({ from, to, sinceMs }) => ({ from, to, sinceMs })),
        pinned,
      }));
    });
  }

  #turn(): void {
    const { engine } = this;
    if (this.#stepping || this.#stopped) return;
    // Also where a lost device has left no request to find out with.
    engine.checkSound();
    this.borrower.work();
    this.mover.work();
    if (!engine.busy) {
      this.#probe();
      return;
    }
    this.#stepping = true;
    engine.run((worked) => {
      this.#stepping = false;
      // Without work it waits for memory: the answers to what it asked for wake it, and so does a look every now and then.
      if (worked) this.wake();
      else this.borrower.work();
    });
  }

  /** Times a step now and then while there is nothing to do: links that open meanwhile need turns too. */
  #probe(): void {
    const { ports } = this.#options;
    const startMs = ports.now();
    if (startMs < this.#probeMs) return;
    if (this.#probing?.next() !== true) {
      this.#probing = undefined;
      this.#probeMs = Infinity;
      return;
    }
    const pauseMs = PROBE_PAUSES * (ports.now() - startMs);
    this.#probeMs = ports.now() + pauseMs;
    ports.timer(pauseMs, () => this.wake());
  }

  #tokensPerSecond(generated: number): number {
    const now = this.#options.ports.now();
    const elapsedMs = now - this.#rate.atMs;
    if (elapsedMs >= RATE_MS) {
      const perSecond = (generated - this.#rate.tokens) / elapsedMs * 1000;
      this.#rate = { atMs: now, tokens: generated, perSecond };
    }
    return this.#rate.perSecond;
  }
}
