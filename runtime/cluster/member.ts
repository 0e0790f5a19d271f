/**
 * One member of a cluster: an instance or a holder, with its lending, borrowing, moving and routing, and the gManager if
 * it carries one.
 *
 * Single-threaded and driven by what its ports tell: messages, timers, turns. It runs its own engine, one step a turn, and
 * answers others' attention between the slices of a step.
 *
 * Longer than other files because it is the one place where the parts meet; each part is a file of its own.
 *
 * @module
 */
import type { BlockPool } from "../../scheduler/block_pool.ts";
import { EpochGuard } from "../../scheduler/gmanager/epoch_guard.ts";
import { HeartbeatWriter } from "../../scheduler/gmanager/heartbeat_writer.ts";
import { clusterView } from "../../scheduler/gmanager/planner_view.ts";
import type { BorrowedSlot } from "../../scheduler/lending/borrowed.ts";
import { Creditor } from "../../scheduler/lending/creditor.ts";
import type { RefusedFormat } from "../../scheduler/lending/creditor_types.ts";
import { LendLimit } from "../../scheduler/lending/lend_limit.ts";
import type { PeerLink } from "../../scheduler/links/link.ts";
import type { MemoryPolicyHost } from "../../scheduler/memory_policy.ts";
import type { PolicyHost } from "../../scheduler/policy.ts";
import type { KvFormat, MemberCard, MemberIdentity } from "../../scheduler/protocol/member.ts";
import type {
  AttentionMessage,
  BlockReport,
  ControlMessage,
  Envelope,
  Heartbeat,
  HeartbeatAck,
  KvMessage,
  LoadReport,
  MemberStatus,
  PerformanceReport,
} from "../../scheduler/protocol/messages.ts";
import type { ClusterView } from "../../plugins/types.ts";
import type { Device, KvStore } from "../device/device.ts";
import type { Engine } from "../engine/engine.ts";
import type { EngineRequest } from "../engine/request.ts";
import type { StepRunner } from "../engine/step_runner.ts";
import { AttentionClient, type StepTiming } from "./attention_client.ts";
import { AttentionServer } from "./attention_server.ts";
import { Borrower } from "./borrower.ts";
import { Counters } from "./counters.ts";
import { Lender } from "./lender.ts";
import { Manager } from "./manager.ts";
import { Mover } from "./mover.ts";
import type { ClusterTimings } from "./options.ts";
import { Operator } from "./operator.ts";
import { type MoveOrder, type MoveResult, parseSequence } from "./orders.ts";
import { Peers } from "./peers.ts";
import type { MemberPorts, Timer } from "./ports.ts";
import type { ClusterCommand, ClusterReport, CommandResult } from "./report.ts";
import { type RequestListener, Router } from "./router.ts";
import { blockReport, loadReport, placementEntries } from "./self_report.ts";
import { Sender } from "./sender.ts";

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

/** KV memory alone. */
export interface HolderParts {
  /** Kind. */
  readonly kind: "holder";
  /**
   * Binds the memory to a format; `done` is told the store and its pool, or why not. A store of another format is gone
   * when this is called.
   */
  readonly bind: (
    format: KvFormat,
    done: (bound: { readonly store: KvStore; readonly pool: BlockPool } | Error) => void,
  ) => void;
  /** A pool to begin with; nothing is lent from it. */
  readonly emptyPool: BlockPool;
}

/** Makes a {@linkcode Member}. */
export interface MemberOptions {
  /** Who it is; `clusterUrl` is the network's, `format` that of the parts. */
  readonly card: Omit<MemberCard, "clusterUrl" | "format">;
  /** What it has. */
  readonly parts: FullParts | HolderParts;
  /** Addresses of members to join; without any it carries the gManager. */
  readonly join: readonly string[];
  /** Decides on lending. */
  readonly memoryPolicy: MemoryPolicyHost;
  /** Times. */
  readonly timings: ClusterTimings;
  /** Most of its blocks that may be lent, 0 to 1. @default {all but a reserve that follows recent own use} */
  readonly lendShare?: number;
  /** Multiply-accumulates between two turns while others have memory here. @default {SLICE_WORK} */
  readonly sliceWork?: number;
  /** Tokens of one segment. */
  readonly segmentTokens: number;
  /** An operator wants this member to leave; whoever holds it calls {@linkcode Member.leave}. */
  readonly onLeaveAsked: () => void;
  /** Most bytes of KV a second that leave while steps run. @default {96e6} */
  readonly moveBytesPerSecond?: number;
}

/** Multiply-accumulates of a slice: about 2 ms on one slow core. */
const SLICE_WORK = 40e6;
/** The same while nobody has memory here: control messages wait no longer than that. */
const QUIET_SLICE_WORK = 800e6;
/** Between looks at leases, ms. */
const LEASE_TICK_MS = 100;
/** Between looks at what waits for memory, ms. */
const PARKED_TICK_MS = 20;
/** Time in which the bytes of a segment must have come, ms. */
const MOVE_MS = 15_000;
/** Bytes of KV a second that leave while steps run. */
const MOVE_BYTES_PER_SECOND = 96e6;
/** Window of the token rate, ms. */
const RATE_MS = 2_000;

/** Control messages that no part of its own takes. */
type OtherControl = Extract<
  ControlMessage,
  { readonly kind: "heartbeat" | "heartbeat-ack" | "move-kvcache" | "recall" | "revoked" | "ping" | "operate" | "bye" }
>;

/** A member. */
export class Member {
  /** What it counts. */
  readonly counters: Counters = new Counters();
  /** Its engine; a holder has none. */
  readonly engine: Engine | undefined;
  /** Its leases. */
  readonly creditor: Creditor;
  readonly #options: MemberOptions;
  readonly #ports: MemberPorts;
  readonly #peers: Peers;
  readonly #limit: LendLimit;
  readonly #epochs = new EpochGuard();
  readonly #lender: Lender;
  readonly #sender: Sender;
  readonly #attentionServer: AttentionServer;
  readonly #attention: AttentionClient | undefined;
  readonly #borrower: Borrower | undefined;
  readonly #mover: Mover | undefined;
  readonly #router: Router | undefined;
  readonly #manager: Manager | undefined;
  readonly #operator: Operator;
  readonly #writer: HeartbeatWriter;
  readonly #timers = new Set<Timer>();
  #store: KvStore | undefined;
  #pool: BlockPool;
  #format: KvFormat | undefined;
  #binding: KvFormat | undefined;
  /** Addresses at which a gManager may be. */
  readonly #managerUrls: Set<string>;
  /** The gManager that answered last. */
  #managerPeer: string | undefined;
  #managerUrl: string | undefined;
  /** Addresses that did not answer lately. */
  readonly #unreached = new Set<string>();
  #directory: { readonly members: readonly MemberStatus[]; readonly atMs: number } = { members: [], atMs: 0 };
  #stepping = false;
  #turnWanted = false;
  #leaving: { readonly done: () => void; readonly untilMs: number } | undefined;
  #evacuated = false;
  #stopped = false;
  #rate = { atMs: 0, tokens: 0, perSecond: 0 };

  /** Puts the parts together; {@linkcode start} brings it to life. */
  constructor(options: MemberOptions, ports: MemberPorts) {
    this.#options = options;
    this.#ports = ports;
    this.#managerUrls = new Set(options.join);
    const { parts, timings, segmentTokens, card } = options;
    const { counters } = this;
    const full = parts.kind === "full" ? parts : undefined;
    const self: MemberIdentity = { name: card.name, incarnation: card.incarnation };
    const peers = new Peers({
      ports,
      reconnectMs: timings.partialMs,
      redialMs: timings.heartbeatMs,
      listener: {
        reached: (peer) => this.#reached(peer),
        lost: (peer, reason) => this.#lostPeer(peer, reason),
      },
    });
    this.#peers = peers;
    this.#format = full?.format;
    this.#store = full?.device;
    this.#attention = full === undefined ? undefined : new AttentionClient({
      device: full.device,
      ports,
      peers,
      counters,
      partialMs: timings.partialMs,
      slice: () => this.#sliceWork(),
      segmentTokens,
      onStep: (step) => full.model.observe(step),
      onHolderLost: (incarnation, reason) => this.#peers.lose(incarnation, reason),
      onSlotsRefused: (incarnation, leases, reason) => this.#loseSlots(incarnation, { leases, reason }),
    });
    this.engine = this.#attention === undefined ? undefined : full?.engine({
      runner: this.#attention,
      reach: () => this.#reach(),
      onRelease: (slots) => this.#borrower?.release(slots),
    });
    this.#pool = parts.kind === "holder" ? parts.emptyPool : enginePool(this.engine);
    this.#limit = new LendLimit({
      now: ports.now,
      cap: options.lendShare === undefined ? undefined : { kind: "share", share: options.lendShare },
      unitBlocks: full === undefined ? 1 : segmentTokens / full.format.blockTokens,
      recallMs: timings.recallMs,
    });
    this.creditor = new Creditor({
      pool: this.#pool,
      blocksPerSegment: full === undefined ? 1 : segmentTokens / full.format.blockTokens,
      format: () => this.#format,
      acceptFormat: full === undefined ? (format) => this.#acceptFormat(format) : undefined,
      now: ports.now,
      ttlMs: timings.leaseMs,
      limit: this.#limit,
      self,
      epochs: this.#epochs,
    });
    this.#sender = new Sender({
      ports,
      peers,
      counters,
      bytesPerSecond: options.moveBytesPerSecond ?? MOVE_BYTES_PER_SECOND,
      busy: () => this.#stepping,
    });
    this.#lender = new Lender({
      peers,
      counters,
      creditor: this.creditor,
      store: () => this.#store,
      sender: this.#sender,
      leaseMs: timings.leaseMs,
      evacuated: () => this.#evacuated,
    });
    this.#attentionServer = new AttentionServer({ store: () => this.#store, creditor: this.creditor, segmentTokens });
    if (full !== undefined && this.engine !== undefined) {
      const { memory } = this.engine;
      this.#borrower = new Borrower({
        ports,
        peers,
        counters,
        memory,
        policy: options.memoryPolicy,
        view: () => this.view(),
        format: full.format,
        self: card.name,
        callMs: timings.callMs,
        onLost: (incarnation, lost) => this.#loseSlots(incarnation, lost),
        onChange: () => this.wake(),
      });
      this.#mover = new Mover({
        peers,
        counters,
        memory,
        store: full.device,
        sender: this.#sender,
        blocksPerSegment: segmentTokens / full.format.blockTokens,
        self: card.name,
        timeoutMs: MOVE_MS,
        onEnd: () => this.wake(),
      });
      this.#router = new Router({
        ports,
        peers,
        counters,
        engine: this.engine,
        policy: full.scheduler,
        view: () => this.view(),
        leaving: () => this.#leaving !== undefined,
        onWork: () => this.wake(),
        callMs: timings.callMs,
      });
    }
    this.#manager = options.join.length > 0 ? undefined : new Manager({
      self,
      ports,
      timings,
      policy: options.memoryPolicy,
      segmentTokens,
      epochs: this.#epochs,
    });
    this.#writer = new HeartbeatWriter();
    this.#operator = new Operator({
      ports,
      peers,
      self: card.name,
      callMs: timings.callMs,
      manager: () => this.#managerPeer === card.incarnation ? undefined : this.#managerPeer,
      hands: {
        report: () => this.#ownReport(),
        move: (order, done) => this.#order(order, done),
        pin: (sequence, pinned) => this.engine?.memory.pin(sequence, pinned) ?? false,
        evacuate: (undo) => this.#evacuate(undo),
        leave: options.onLeaveAsked,
      },
    });
  }

  /** Its card as it is now. */
  get card(): MemberCard {
    return {
      ...this.#options.card,
      clusterUrl: this.#ports.network.url,
      format: this.#format,
      managerUrl: this.#managerUrl,
    };
  }

  /** Highest epoch seen. */
  get epoch(): number {
    return this.#epochs.highest;
  }

  /** Requests that came in here and have not ended. */
  get fronted(): number {
    return this.#router?.fronted ?? 0;
  }

  /** Starts to talk and to run. */
  start(): void {
    const { network } = this.#ports;
    const { timings, join } = this.#options;
    network.listen({
      opened: (link) => this.#peers.opened(link),
      received: (link, envelope) => this.#received(link, envelope),
      closed: (link, reason) => this.#peers.closed(link, reason),
      failed: (url, error) => this.#failed(url, error),
    });
    for (const url of join) this.#peers.want(url);
    this.#every(timings.heartbeatMs, () => this.#beat());
    this.#every(LEASE_TICK_MS, () => this.#lend());
    this.#every(timings.renewMs, () => this.#borrower?.tick());
    this.#every(PARKED_TICK_MS, () => {
      if (this.engine?.busy === true && !this.#stepping) this.wake();
      this.#leaveWhenDone();
    });
    if (this.#manager !== undefined) this.#every(timings.planMs, () => this.#plan());
    this.#beat();
  }

  /** Stops talking and running; what is live is dropped. */
  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
    this.#peers.stop();
  }

  /**
   * Takes a request from a client, see {@linkcode Router.submit}.
   *
   * @throws {TypeError} on a holder.
   */
  submit(request: EngineRequest, listener: RequestListener): void {
    if (this.#router === undefined) throw new TypeError("Cannot run a request: a holder has no model");
    this.#router.submit(request, listener);
  }

  /** The client of a request is gone. */
  cancel(id: string): void {
    this.#router?.cancel(id);
    this.wake();
  }

  /** The cluster as known now. */
  report(done: (report: ClusterReport) => void): void {
    this.#operator.report(done);
  }

  /** Carries out an operator's wish. */
  operate(command: ClusterCommand, done: (result: CommandResult) => void): void {
    this.#operator.operate(command, done);
  }

  /**
   * Leaves: takes nothing new, hands over what runs, gives back what it borrowed, calls back what it lent. `done` is called
   * once nothing is left, or when `timeoutMs` have passed; {@linkcode stop} is the caller's.
   */
  leave(options: { readonly timeoutMs: number; readonly done: () => void }): void {
    if (this.#leaving !== undefined) return;
    this.#leaving = { done: options.done, untilMs: this.#ports.now() + options.timeoutMs };
    this.creditor.leave();
    this.#router?.handOver();
    this.#lender.recallAll(options.timeoutMs);
    this.#beat();
    this.wake();
  }

  /** Lets the engine run if it can. */
  wake(): void {
    if (this.#turnWanted || this.#stopped || this.engine === undefined) return;
    this.#turnWanted = true;
    this.#ports.defer(() => {
      this.#turnWanted = false;
      this.#turn();
    });
  }

  /** What is known of the cluster, this member as it is now. */
  view(): ClusterView {
    const { segmentTokens, card } = this.#options;
    return clusterView({ members: this.#members(), segmentTokens, format: this.#format, self: card.name });
  }

  /** Checks pool, leases and engine. @throws {Error} with the arithmetic that does not hold. */
  checkIntegrity(): void {
    this.creditor.checkIntegrity();
    this.engine?.checkIntegrity();
  }

  #turn(): void {
    const { engine } = this;
    if (this.#stepping || this.#stopped || engine === undefined) return;
    this.#borrower?.work();
    this.#mover?.work();
    if (!engine.busy) return;
    this.#stepping = true;
    engine.run((worked) => {
      this.#stepping = false;
      // Without work it waits for memory: whatever changes wakes it, and so does a look every now and then.
      if (worked) this.wake();
    });
  }

  #every(ms: number, work: () => void): void {
    const arm = () => {
      const timer = this.#ports.timer(ms, () => {
        this.#timers.delete(timer);
        if (this.#stopped) return;
        arm();
        work();
      });
      this.#timers.add(timer);
    };
    arm();
  }

  #sliceWork(): number {
    if (this.creditor.counts.segments > 0) return this.#options.sliceWork ?? SLICE_WORK;
    return this.#peers.cards.length > 0 ? QUIET_SLICE_WORK : Infinity;
  }

  #blocks(): BlockReport {
    const pool = this.#store === undefined ? undefined : this.#pool;
    const blocks = blockReport({ pool, creditor: this.creditor, engine: this.engine });
    return this.#evacuated ? { ...blocks, lendable: 0 } : blocks;
  }

  #load(): LoadReport {
    const { parts } = this.#options;
    return loadReport({
      engine: this.engine,
      maxBatch: parts.kind === "full" ? parts.maxBatch : 0,
      tokensPerSecond: this.#tokensPerSecond(),
      counters: this.counters.values,
      performance: parts.kind === "full" ? parts.model.report() : undefined,
    });
  }

  #tokensPerSecond(): number {
    const { engine } = this;
    if (engine === undefined) return 0;
    const now = this.#ports.now();
    const { generatedTokens } = engine.stats();
    const elapsedMs = now - this.#rate.atMs;
    if (elapsedMs >= RATE_MS) {
      const perSecond = (generatedTokens - this.#rate.tokens) / elapsedMs * 1000;
      this.#rate = { atMs: now, tokens: generatedTokens, perSecond };
    }
    return this.#rate.perSecond;
  }

  /** Everybody as the last directory said, without those whose link is gone, with this member as it is now. */
  #members(): MemberStatus[] {
    const sinceMs = this.#ports.now() - this.#directory.atMs;
    const forwarded = this.#router?.forwarded;
    const others = this.#directory.members
      .filter(({ card }) => card.name !== this.#options.card.name && this.#peers.link(card.incarnation) !== undefined)
      .map((status) => {
        // Requests sent since that report are not in it.
        const extra = Math.max(
          0,
          (forwarded?.get(status.card.incarnation) ?? 0) - status.load.running - status.load.waiting,
        );
        const load = extra > 0 ? { ...status.load, waiting: status.load.waiting + extra } : status.load;
        return { ...status, load, silentMs: status.silentMs + sinceMs };
      });
    return [this.#status(), ...others];
  }

  #status(): MemberStatus {
    return {
      card: this.card,
      blocks: this.#blocks(),
      load: this.#load(),
      silentMs: 0,
      state: this.#leaving === undefined ? "alive" : "leaving",
    };
  }

  /** Segments that others would lend now. */
  #reach(): number {
    const perSegment = this.#format === undefined ? 1 : this.#options.segmentTokens / this.#format.blockTokens;
    const { members } = this.#directory;
    return members.reduce((sum, { card, blocks, state }) => {
      const usable = state === "alive" && card.name !== this.#options.card.name &&
        this.#peers.link(card.incarnation) !== undefined;
      return usable ? sum + Math.floor(blocks.lendable / perSegment) : sum;
    }, 0);
  }

  #received(link: PeerLink, { from, to, epoch, message }: Envelope): void {
    const { peer } = link;
    if (to.incarnation !== this.#options.card.incarnation || from.incarnation !== peer.incarnation) {
      this.counters.add("refused_wrong_incarnation");
      return;
    }
    this.#epochs.see(epoch);
    switch (message.kind) {
      case "attend":
        this.#attend(link, message);
        break;
      case "partials":
        this.#attention?.take(peer.incarnation, message);
        break;
      case "refused":
        if (this.#attention?.take(peer.incarnation, message) !== true) this.#peers.answer(peer, message);
        break;
      case "piece":
        // A segment that was asked for comes with the call that asked.
        if (this.#mover?.takeBytes(message) !== true) this.#lender.takeBytes(peer, message);
        break;
      case "commit":
      case "read":
        this.#lender.takeBytes(peer, message);
        break;
      case "try-move-kvcache":
      case "renew":
      case "release":
        this.#lender.take(peer, message, epoch);
        break;
      case "granted":
      case "renewed":
      case "released":
      case "written":
      case "sent":
      case "pong":
      case "operated":
      case "move-result":
        this.#peers.answer(peer, message);
        break;
      case "submit":
      case "accepted":
      case "rejected":
      case "events":
      case "cancel":
      case "handed-back":
        this.#router?.take(peer, message);
        this.wake();
        break;
      default:
        this.#control(link, { message, epoch });
    }
  }

  /** The rest of the control lane. */
  #control(
    { peer }: PeerLink,
    received: {
      readonly epoch: number;
      readonly message: OtherControl;
    },
  ): void {
    const { message, epoch } = received;
    switch (message.kind) {
      case "heartbeat": {
        const ack = this.#manager?.heartbeat(peer, message);
        if (ack !== undefined) this.#peers.tell(peer.incarnation, ack);
        break;
      }
      case "heartbeat-ack":
        if (this.#epochs.order(epoch, peer) === undefined) this.#acknowledged({ manager: peer, epoch }, message);
        break;
      case "move-kvcache": {
        const refused = this.#epochs.order(epoch, peer);
        if (refused !== undefined) {
          this.counters.add(`refused_${refused.code}`);
          this.#peers.tell(peer.incarnation, { ...refused, call: message.call });
          break;
        }
        this.#order(message, ({ moved, problem }) => {
          this.#peers.tell(peer.incarnation, { kind: "move-result", call: message.call, moved, problem });
        });
        break;
      }
      case "recall":
        this.#giveBack(peer.incarnation, message.segments);
        break;
      case "revoked":
        this.#loseSlots(peer.incarnation, { leases: new Set(message.leases), reason: "it took them back" });
        break;
      case "ping":
        this.#peers.tell(peer.incarnation, { kind: "pong", call: message.call });
        break;
      case "operate":
        this.#operator.take(peer, message);
        break;
      case "bye":
        this.#peers.unwant(peer.clusterUrl);
        this.#manager?.gone(peer);
        this.creditor.forget(peer.incarnation);
        this.#peers.lose(peer.incarnation, "it left");
        break;
      default:
        message satisfies never;
    }
  }

  #attend(link: PeerLink, request: Extract<AttentionMessage, { readonly kind: "attend" }>): void {
    const answer = this.#attentionServer.answer(link.peer, request);
    this.counters.add(answer.kind === "partials" ? "attention_served" : `refused_${answer.code}`);
    link.attention.send(answer);
  }

  #reached(peer: MemberCard): void {
    this.#unreached.delete(peer.clusterUrl);
    this.#attention?.reached(peer.incarnation);
    if (this.#options.card.role === "holder" && peer.format !== undefined && this.#format === undefined) {
      this.#bind(peer.format);
    }
    if (peer.managerUrl !== undefined) this.#follow(peer.managerUrl);
    if (this.#managerUrls.has(peer.clusterUrl)) this.#beatTo(peer);
    this.wake();
  }

  #lostPeer({ name, incarnation }: MemberCard, reason: string): void {
    this.#ports.log(`lost ${name}: ${reason}`);
    this.counters.add("peers_lost");
    if (this.#managerPeer === incarnation) this.#managerPeer = undefined;
    this.#loseSlots(incarnation, { reason });
    this.#borrower?.forget(incarnation);
    this.#router?.lost(incarnation);
    this.wake();
  }

  /** Slots are gone, all of an incarnation's or some leases'. */
  #loseSlots(incarnation: string, lost: { readonly leases?: ReadonlySet<number>; readonly reason: string }): void {
    const { leases, reason } = lost;
    const segments = this.engine?.memory.lose(incarnation, leases) ?? 0;
    this.#mover?.lose(incarnation, leases);
    this.#attention?.lose(incarnation);
    if (segments === 0) return;
    this.counters.add("segments_lost", segments);
    this.#ports.log(`lost ${segments} borrowed segments: ${reason}`);
    this.wake();
  }

  #failed(url: string, error: Error): void {
    // Once for each address until it is reached: it is tried again and again.
    if (!this.#unreached.has(url)) this.#ports.log(error.message);
    this.#unreached.add(url);
    this.#peers.failed(url, error);
  }

  /** Reports to the gManager: the one that leads here, else the one that answers, else whoever may be it. */
  #beat(): void {
    const { card } = this;
    if (this.#manager !== undefined) {
      const ack = this.#manager.heartbeat(card, this.#heartbeat(card));
      if (ack !== undefined) return this.#acknowledged({ manager: card, epoch: this.#epochs.highest }, ack);
    }
    const leader = this.#managerPeer === undefined ? undefined : this.#peers.link(this.#managerPeer)?.peer;
    if (leader !== undefined) return this.#beatTo(leader);
    for (const peer of this.#peers.cards) if (this.#managerUrls.has(peer.clusterUrl)) this.#beatTo(peer);
  }

  #beatTo(peer: MemberCard): void {
    this.#peers.tell(peer.incarnation, this.#heartbeat(peer));
  }

  /** Whoever listens there may carry the gManager. */
  #follow(url: string): void {
    if (url === this.#ports.network.url || this.#managerUrls.has(url)) return;
    this.#managerUrls.add(url);
    this.#peers.want(url);
  }

  #heartbeat(manager: MemberIdentity): Heartbeat {
    const { card } = this;
    return this.#writer.write({
      card,
      blocks: this.#blocks(),
      load: this.#load(),
      entries: this.engine === undefined ? [] : placementEntries(this.engine, card.name),
      leases: this.creditor.leases(),
      moves: this.#mover?.reports ?? [],
      leaving: this.#leaving !== undefined,
    }, { manager, epoch: this.#epochs.highest });
  }

  #acknowledged(from: { readonly manager: MemberCard; readonly epoch: number }, ack: HeartbeatAck): void {
    const { manager } = from;
    this.#managerPeer = manager.incarnation;
    this.#managerUrl = manager.clusterUrl;
    this.#writer.acknowledge(ack, from);
    const before = this.#directory.members;
    this.#directory = { members: ack.members, atMs: this.#ports.now() };
    const others = ack.members.filter(({ card }) =>
      card.incarnation !== this.#options.card.incarnation && card.role !== "manager"
    );
    const urls = new Set(others.map(({ card }) => card.clusterUrl));
    for (const { card } of before) {
      if (urls.has(card.clusterUrl) || this.#managerUrls.has(card.clusterUrl)) continue;
      this.#peers.unwant(card.clusterUrl);
      this.#unreached.delete(card.clusterUrl);
    }
    for (const url of urls) this.#peers.want(url);
  }

  #lend(): void {
    const { owned } = this.#pool.counts;
    this.#limit.observe({ own: owned, waitingBlocks: this.engine?.waitingBlocks ?? 0 });
    this.#lender.tick();
  }

  #plan(): void {
    const { card } = this.#options;
    for (const planned of this.#manager?.plan() ?? []) {
      const { home, sequence, segments, from, to, predictedGain } = planned;
      const order = { sequence, segments, from, to, predictedGain };
      if (home === card.name) {
        this.#order(order, (result) => this.#manager?.moved(planned, result));
        continue;
      }
      const link = this.#peers.named(home);
      if (link === undefined) continue;
      const epoch = this.#epochs.highest;
      this.#peers.ask(link.peer.incarnation, { kind: "move-kvcache", call: this.#peers.nextCall(), ...order }, {
        timeoutMs: MOVE_MS,
        done: (answer) => {
          if (answer.kind === "refused" && answer.code === "stale_epoch") this.#manager?.refused(epoch);
          this.#manager?.moved(planned, { moved: answer.kind === "move-result" ? answer.moved : 0 });
        },
      });
    }
  }

  /** Carries out an order to move segments of a sequence that is at home here. */
  #order(order: MoveOrder, done: (result: MoveResult) => void): void {
    const { engine } = this;
    const borrower = this.#borrower;
    const self = this.#options.card.name;
    const name = parseSequence(order.sequence);
    const handle = name?.home === self ? name.handle : undefined;
    const placed = engine?.memory.placements().find(({ sequence }) => sequence === handle);
    if (engine === undefined || borrower === undefined || placed === undefined) {
      return done({ moved: 0, problem: `wanted a sequence of ${self} with KV, got ${order.sequence}` });
    }
    const sources = order.from === self
      ? undefined
      : engine.memory.held(this.#peers.named(order.from)?.peer.incarnation ?? "")
        .filter(({ sequence }) => sequence === placed.sequence).slice(0, order.segments);
    if (sources !== undefined && sources.length === 0) {
      return done({ moved: 0, problem: `wanted segments of ${order.sequence} on ${order.from}, got none` });
    }
    if (order.to === self) {
      const moves = (sources ?? []).map(({ slot }) => engine.memory.relocate(slot)).filter((move) =>
        move !== undefined
      );
      for (const move of moves) this.#mover?.start(move);
      return done({ moved: moves.length, problem: moves.length === 0 ? "no room at home" : undefined });
    }
    const segments = sources?.length ?? order.segments;
    const demand = {
      sequence: placed.sequence,
      segments,
      tokens: placed.length,
      maxTokens: placed.length,
      localSegments: 0,
      reason: "grow" as const,
    };
    borrower.reserve(demand, (slots) => {
      if (slots === undefined) return done({ moved: 0, problem: `${order.to} does not lend ${segments} segments now` });
      if (sources === undefined) {
        engine.memory.grant(placed.sequence, slots);
      } else {
        const unused = slots.filter((slot, index) => {
          const move = engine.memory.relocate(sources[index].slot, slot);
          if (move !== undefined) this.#mover?.start(move);
          return move === undefined;
        });
        borrower.release(unused);
      }
      this.wake();
      done({ moved: segments });
    }, order.to);
  }

  /** A creditor wants segments back: they come home where there is room, else they go to others. */
  #giveBack(incarnation: string, count: number): void {
    const { engine } = this;
    const borrower = this.#borrower;
    if (engine === undefined || borrower === undefined) return;
    const held = engine.memory.held(incarnation);
    const now = this.#ports.now();
    const order = this.#options.memoryPolicy.evict({
      segments: count,
      length: held.length,
      tokens: Int32Array.from(held, ({ tokens }) => tokens),
      segment: Int32Array.from(held, ({ segment }) => segment),
      shared: Int32Array.from(held, ({ sharers }) => sharers),
      ageMs: Float64Array.from(held, ({ sinceMs }) => now - sinceMs),
    });
    for (const index of order.slice(0, count)) {
      const { slot, sequence, tokens } = held[index];
      const home = engine.memory.relocate(slot);
      if (home !== undefined) {
        this.#mover?.start(home);
        continue;
      }
      const demand = { sequence, segments: 1, tokens, maxTokens: tokens, localSegments: 0, reason: "grow" as const };
      borrower.reserve(demand, (slots) => {
        const move = slots === undefined ? undefined : engine.memory.relocate(slot, slots[0]);
        if (move !== undefined) this.#mover?.start(move);
        else if (slots !== undefined) borrower.release(slots);
      });
    }
  }

  #evacuate(undo: boolean): void {
    this.#evacuated = !undo;
    if (!undo) this.#lender.recallAll(this.#options.timings.recallMs);
  }

  #leaveWhenDone(): void {
    const leaving = this.#leaving;
    if (leaving === undefined || this.#stopped) return;
    const busy = (this.#router?.fronted ?? 0) + (this.#router?.hosted ?? 0) > 0 || this.creditor.counts.segments > 0 ||
      (this.#borrower?.releasing ?? 0) > 0;
    if (busy && this.#ports.now() < leaving.untilMs) return;
    this.#leaving = { done: () => {}, untilMs: Infinity };
    this.#lender.revokeAll();
    for (const { incarnation } of this.#peers.cards) this.#peers.tell(incarnation, { kind: "bye" });
    leaving.done();
  }

  #ownReport(): ClusterReport {
    const { segmentTokens, memoryPolicy, card } = this.#options;
    const manager = this.#manager?.leads === true ? this.#manager : undefined;
    return this.#operator.compose({
      members: manager?.directory ?? [this.#status()],
      placements: manager?.placements ?? (this.engine === undefined ? [] : placementEntries(this.engine, card.name)),
      leases: manager?.leases ?? this.creditor.leases().map((lease) => ({ creditor: card.name, ...lease })),
      moves: manager?.moves ?? this.#mover?.reports ?? [],
      manager: manager === undefined ? undefined : card.name,
      epoch: this.#epochs.highest,
      memoryPolicy: memoryPolicy.name,
      segmentTokens,
      blockTokens: this.#format?.blockTokens ?? 0,
      blockBytes: this.#format?.blockBytes ?? 0,
      reachableModelLen: this.engine?.reachableModelLen ?? 0,
    });
  }

  /** A holder's creditor is asked for a format that its memory is not bound to. */
  #acceptFormat(format: KvFormat): RefusedFormat | undefined {
    if (this.#format === undefined || this.#binding !== undefined) {
      this.#bind(format);
      return { code: "unable", detail: "the memory is being prepared for this format; ask again" };
    }
    this.#format = undefined;
    this.#bind(format);
    return { code: "unable", detail: "the memory is being prepared for this format; ask again" };
  }

  #bind(format: KvFormat): void {
    const { parts } = this.#options;
    if (parts.kind !== "holder" || this.#binding !== undefined) return;
    this.#binding = format;
    parts.bind(format, (bound) => {
      this.#binding = undefined;
      if (bound instanceof Error) {
        this.#ports.log(`cannot hold KV of this format: ${bound.message}`);
        return;
      }
      this.#store = bound.store;
      this.#pool = bound.pool;
      this.#format = format;
      this.creditor.rebind({ pool: bound.pool, blocksPerSegment: format.segmentTokens / format.blockTokens });
      this.#beat();
    });
  }
}

function enginePool(engine: Engine | undefined): BlockPool {
  if (engine === undefined) throw new TypeError("Cannot make a member: wanted an engine for an instance with weights");
  return engine.pool;
}
