/**
 * One member of a cluster: an instance or a holder, and the gManager if it carries one.
 *
 * Single-threaded and driven by what its ports tell: messages, timers, turns. Others' attention is answered between the
 * slices of its own steps.
 *
 * Longer than other files because every part and every message meets here once; each part has a file of its own.
 *
 * @module
 */
import { EpochGuard } from "../../scheduler/gmanager/epoch_guard.ts";
import type { MemberSnapshot } from "../../scheduler/gmanager/heartbeat_writer.ts";
import type { Creditor } from "../../scheduler/lending/creditor.ts";
import type { PeerLink } from "../../scheduler/links/link.ts";
import type { MemoryPolicyHost } from "../../scheduler/memory_policy.ts";
import type { MemberCard, MemberIdentity } from "../../scheduler/protocol/member.ts";
import type { BlockReport, ControlMessage, Envelope } from "../../scheduler/protocol/messages.ts";
import type { Engine } from "../engine/engine.ts";
import type { EngineRequest } from "../engine/request.ts";
import { Counters } from "./counters.ts";
import { digestedDevice } from "./digested_device.ts";
import { Directory, statusOf } from "./directory.ts";
import { type FullParts, Instance } from "./instance.ts";
import { type HolderParts, LentMemory } from "./lent_memory.ts";
import { Manager } from "./manager.ts";
import { Operator } from "./operator.ts";
import type { ClusterTimings } from "./options.ts";
import type { MoveOrder, MoveResult } from "./orders.ts";
import { Peers } from "./peers.ts";
import type { MemberPorts, Timer } from "./ports.ts";
import type { ClusterCommand, ClusterReport, CommandResult } from "./report.ts";
import type { RequestListener } from "./router.ts";
import { Sender } from "./sender.ts";

/** Makes a {@linkcode Member}. */
export interface MemberOptions {
  /** Who it is; what changes is left out. */
  readonly card: Omit<MemberCard, "clusterUrl" | "format" | "managerUrl">;
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
  /** Multiply-accumulates between two turns while others have memory here, or KV is sent. @default {SLICE_WORK} */
  readonly sliceWork?: number;
  /** Tokens of one segment. */
  readonly segmentTokens: number;
  /** An operator wants this member to leave; whoever holds it calls {@linkcode Member.leave}. */
  readonly onLeaveAsked: () => void;
  /** Most bytes of KV a second that leave while steps run. @default {MOVE_BYTES_PER_SECOND} */
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
/** Time in which a home must say what became of an order, ms. */
const ORDER_MS = 15_000;
/** Bytes of KV a second that leave while steps run. */
const MOVE_BYTES_PER_SECOND = 96e6;

/** Control messages that no part of its own takes. */
type OtherControl = Extract<
  ControlMessage,
  { readonly kind: "heartbeat" | "heartbeat-ack" | "move-kvcache" | "recall" | "revoked" | "ping" | "operate" | "bye" }
>;

/** A member. */
export class Member {
  /** What it counts. */
  readonly counters: Counters = new Counters();
  readonly #options: MemberOptions;
  readonly #ports: MemberPorts;
  readonly #peers: Peers;
  readonly #epochs = new EpochGuard();
  readonly #instance: Instance | undefined;
  readonly #lent: LentMemory;
  readonly #sender: Sender;
  readonly #manager: Manager | undefined;
  readonly #directory: Directory;
  readonly #operator: Operator;
  readonly #timers = new Set<Timer>();
  #leaving: { readonly done: (() => void)[]; readonly untilMs: number } | undefined;
  #left = false;
  #stopped = false;

  /** Puts the parts together; {@linkcode start} brings it to life. */
  constructor(options: MemberOptions, ports: MemberPorts) {
    this.#options = options;
    this.#ports = ports;
    const { parts, timings, segmentTokens, card, memoryPolicy, join } = options;
    const { counters } = this;
    const epochs = this.#epochs;
    const self: MemberIdentity = { name: card.name, incarnation: card.incarnation };
    const peers = new Peers({
      ports,
      reconnectMs: timings.partialMs,
      redialMs: timings.heartbeatMs,
      suspectMs: timings.suspectMs,
      listener: {
        reached: (peer) => this.#reached(peer),
        lost: (peer, reason) => this.#lost(peer, reason),
      },
    });
    this.#peers = peers;
    const sender = this.#sender = new Sender({
      ports,
      peers,
      counters,
      bytesPerSecond: options.moveBytesPerSecond ?? MOVE_BYTES_PER_SECOND,
      busy: () => this.#instance?.stepping === true,
    });
    this.#instance = parts.kind === "holder" ? undefined : new Instance({
      ports,
      peers,
      counters,
      parts,
      self: card.name,
      memoryPolicy,
      timings,
      segmentTokens,
      sender,
      slice: () => this.#sliceWork(),
      view: () => this.#directory.view(),
      leaving: () => this.#leaving !== undefined,
    });
    this.#lent = new LentMemory({
      ports,
      peers,
      counters,
      self,
      epochs,
      sender,
      timings,
      lendShare: options.lendShare,
      segmentTokens,
      memory: memoryOf(parts, this.#instance),
      onBound: () => this.#directory.beat(),
    });
    this.#manager = join.length > 0
      ? undefined
      : new Manager({ self, ports, timings, policy: memoryPolicy, segmentTokens, epochs });
    this.#directory = new Directory({
      ports,
      peers,
      epochs,
      join,
      manager: this.#manager,
      snapshot: () => this.#snapshot(),
      segmentTokens,
      forwarded: () => this.#instance?.router.forwarded ?? new Map(),
    });
    this.#operator = new Operator({
      ports,
      peers,
      self: card.name,
      callMs: timings.callMs,
      manager: () => {
        const incarnation = this.#directory.manager?.incarnation;
        return incarnation === card.incarnation ? undefined : incarnation;
      },
      hands: {
        report: () => this.#ownReport(),
        move: (order, done) => this.#order(order, done),
        pin: (sequence, pinned) => this.engine?.memory.pin(sequence, pinned) ?? false,
        evacuate: (undo) => this.#lent.evacuate(undo),
        leave: options.onLeaveAsked,
      },
    });
  }

  /** Its card as it is now. */
  get card(): MemberCard {
    return {
      ...this.#options.card,
      clusterUrl: this.#ports.network.url,
      format: this.#lent.format,
      managerUrl: this.#directory.manager?.clusterUrl,
    };
  }

  /** Its engine; a holder has none. */
  get engine(): Engine | undefined {
    return this.#instance?.engine;
  }

  /** Its leases to others. */
  get creditor(): Creditor {
    return this.#lent.creditor;
  }

  /** Highest epoch seen. */
  get epoch(): number {
    return this.#epochs.highest;
  }

  /** Requests that came in here and have not ended. */
  get fronted(): number {
    return this.#instance?.router.fronted ?? 0;
  }

  /** Starts to talk and to run. */
  start(): void {
    const { timings } = this.#options;
    this.#ports.network.listen({
      opened: (link) => this.#peers.opened(link),
      received: (link, envelope) => this.#received(link, envelope),
      closed: (link, reason) => this.#peers.closed(link, reason),
      failed: (url, error) => {
        if (this.#directory.failed(url)) this.#ports.log(error.message);
        this.#peers.failed(url, error);
      },
    });
    this.#directory.start();
    this.#every(timings.heartbeatMs, () => this.#directory.beat());
    this.#every(LEASE_TICK_MS, () => this.#lent.tick(this.engine?.waitingBlocks ?? 0));
    this.#every(timings.renewMs, () => this.#instance?.borrower.tick());
    this.#every(timings.suspectMs / 4, () => this.#peers.checkSilence());
    this.#every(PARKED_TICK_MS, () => {
      this.#instance?.tick();
      this.#leaveWhenDone();
    });
    if (this.#manager !== undefined) this.#every(timings.planMs, () => this.#plan());
    this.#directory.beat();
  }

  /** Stops talking and running; what is live is dropped. */
  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#instance?.stop();
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
    if (this.#instance === undefined) throw new TypeError("Cannot run a request: a holder has no model");
    this.#instance.router.submit(request, listener);
  }

  /** The client of a request is gone. */
  cancel(id: string): void {
    this.#instance?.router.cancel(id);
    this.#instance?.wake();
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
    if (this.#left) return this.#ports.defer(options.done);
    if (this.#leaving !== undefined) return void this.#leaving.done.push(options.done);
    this.#leaving = { done: [options.done], untilMs: this.#ports.now() + options.timeoutMs };
    this.#instance?.router.handOver();
    this.#lent.leave(options.timeoutMs);
    this.#directory.beat();
    this.#instance?.wake();
  }

  /** Checks pool, leases and engine. @throws {Error} with the arithmetic that does not hold. */
  checkIntegrity(): void {
    this.creditor.checkIntegrity();
    this.engine?.checkIntegrity();
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
    if (this.#lent.inUse || this.#sender.sending) return this.#options.sliceWork ?? SLICE_WORK;
    return this.#peers.cards.length > 0 ? QUIET_SLICE_WORK : Infinity;
  }

  #snapshot(): MemberSnapshot {
    const idle = { running: 0, waiting: 0, maxBatch: 0, tokensPerSecond: 0, counters: this.counters.values };
    return {
      card: this.card,
      blocks: this.#blocks(),
      load: this.#instance?.load() ?? idle,
      entries: this.#instance?.entries() ?? [],
      leases: this.creditor.leases(),
      moves: this.#instance?.moves ?? [],
      leaving: this.#leaving !== undefined,
    };
  }

  /** What the heartbeats say, in blocks of the format: those of the pool may have another size. */
  #blocks(): BlockReport {
    const { pool, lendable, filling, formatBlocks } = this.#lent;
    const counts = pool?.counts ?? { total: 0, free: 0, owned: 0, cached: 0, lent: 0, quarantined: 0 };
    return {
      total: counts.total * formatBlocks,
      free: (counts.free + counts.cached) * formatBlocks,
      own: counts.owned * formatBlocks,
      lent: counts.lent * formatBlocks,
      quarantined: counts.quarantined * formatBlocks,
      borrowed: (this.engine?.memory.borrowedBlocks ?? 0) * formatBlocks,
      lendable: lendable * formatBlocks,
      ...(filling > 0 && { filling: filling * formatBlocks }),
    };
  }

  #received(link: PeerLink, { from, to, epoch, message }: Envelope): void {
    const { peer } = link;
    if (to.incarnation !== this.#options.card.incarnation || from.incarnation !== peer.incarnation) {
      this.counters.add("refused_wrong_incarnation");
      return;
    }
    this.#peers.heard(peer.incarnation);
    if (this.#epochs.see(epoch)) this.#manager?.heard();
    const instance = this.#instance;
    switch (message.kind) {
      case "attend":
        this.#lent.attend(link, message);
        break;
      case "partials":
        instance?.attention.take(peer.incarnation, message);
        break;
      case "refused":
        if (instance?.attention.take(peer.incarnation, message) !== true) this.#peers.answer(peer, message);
        break;
      case "piece":
        // A segment that was asked for comes with the call that asked.
        if (instance?.mover.takeBytes(peer.incarnation, message) !== true) this.#lent.takeBytes(peer, message);
        break;
      case "commit":
      case "read":
        this.#lent.takeBytes(peer, message);
        break;
      case "try-move-kvcache":
      case "renew":
      case "release":
        this.#lent.take(peer, message, epoch);
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
        instance?.router.take(peer, message);
        instance?.wake();
        break;
      default:
        this.#control(peer, { message, epoch });
    }
  }

  /** The rest of the control lane. */
  #control(peer: MemberCard, received: { readonly epoch: number; readonly message: OtherControl }): void {
    const { message, epoch } = received;
    switch (message.kind) {
      case "heartbeat": {
        const ack = this.#manager?.heartbeat(peer, message);
        if (ack !== undefined) this.#peers.tell(peer.incarnation, ack);
        break;
      }
      case "heartbeat-ack":
        if (this.#epochs.order(epoch, peer) === undefined) {
          this.#manager?.heard();
          this.#directory.acknowledged({ manager: peer, epoch }, message);
        }
        break;
      case "move-kvcache": {
        const { call } = message;
        const refused = this.#epochs.order(epoch, peer);
        if (refused !== undefined) {
          this.counters.add(`refused_${refused.code}`);
          this.#peers.tell(peer.incarnation, { ...refused, call });
          break;
        }
        this.#order(message, ({ moved, problem }) => {
          this.#peers.tell(peer.incarnation, { kind: "move-result", call, moved, problem });
        });
        break;
      }
      case "recall":
        this.#instance?.relocation.giveBack(peer.incarnation, message.segments);
        break;
      case "revoked":
        this.#instance?.lose(peer.incarnation, { leases: new Set(message.leases), reason: "it took them back" });
        break;
      case "ping":
        this.#peers.tell(peer.incarnation, { kind: "pong", call: message.call });
        break;
      case "operate":
        this.#operator.take(peer, message);
        break;
      case "bye":
        this.#directory.left(peer);
        this.#manager?.gone(peer);
        this.creditor.forget(peer.incarnation);
        this.#peers.lose(peer.incarnation, "it left");
        break;
      default:
        message satisfies never;
    }
  }

  #reached(peer: MemberCard): void {
    this.#instance?.attention.reached(peer.incarnation);
    this.#instance?.router.reached(peer.incarnation);
    // A gManager alone holds nothing, whatever it meets.
    if (peer.format !== undefined && this.#options.card.role === "holder") this.#lent.meet(peer.format);
    this.#compareKernels(peer);
    this.#directory.reached(peer);
    this.#instance?.wake();
  }

  /** Says where equal bits cannot be promised: another CPU may round otherwise, and a GPU does. */
  #compareKernels({ name, role, kernelDigest }: MemberCard): void {
    const own = this.#options.card;
    if (role === "manager" || own.role === "manager" || kernelDigest === own.kernelDigest) return;
    const [theirs, ours] = [digestedDevice(kernelDigest), digestedDevice(own.kernelDigest)];
    const what = theirs === ours ? `the kernels of ${name}` : `${name} (${theirs})`;
    const here = theirs === ours ? "those here" : `this member (${ours})`;
    this.#ports.log(`${what} round otherwise than ${here}: results may differ in their last bits`);
  }

  #lost({ name, incarnation }: MemberCard, reason: string): void {
    this.#ports.log(`lost ${name}: ${reason}`);
    this.counters.add("peers_lost");
    this.#directory.lost(incarnation);
    this.#instance?.lostPeer(incarnation, reason);
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
        timeoutMs: ORDER_MS,
        done: (answer) => {
          if (answer.kind === "refused" && answer.code === "stale_epoch") this.#manager?.refused(epoch);
          this.#manager?.moved(planned, { moved: answer.kind === "move-result" ? answer.moved : 0 });
        },
      });
    }
  }

  #order(order: MoveOrder, done: (result: MoveResult) => void): void {
    if (this.#instance !== undefined) return this.#instance.relocation.order(order, done);
    done({ moved: 0, problem: `${this.#options.card.name} is no home` });
  }

  #leaveWhenDone(): void {
    const leaving = this.#leaving;
    if (leaving === undefined || this.#left) return;
    const { router, borrower } = this.#instance ?? {};
    const busy = (router?.fronted ?? 0) + (router?.hosted ?? 0) + (borrower?.releasing ?? 0) > 0 || this.#lent.inUse;
    if (busy && this.#ports.now() < leaving.untilMs) return;
    this.#left = true;
    this.#lent.revokeAll();
    for (const { incarnation } of this.#peers.cards) this.#peers.tell(incarnation, { kind: "bye" });
    for (const done of leaving.done) done();
  }

  #ownReport(): ClusterReport {
    const { segmentTokens, memoryPolicy, card } = this.#options;
    const manager = this.#manager?.leads === true ? this.#manager : undefined;
    const own = this.#snapshot();
    const { format } = this.#lent;
    return this.#operator.compose({
      members: manager?.directory ?? [statusOf(own)],
      placements: manager?.placements ?? own.entries,
      leases: manager?.leases ?? own.leases.map((lease) => ({ creditor: card.name, ...lease })),
      moves: manager?.moves ?? own.moves,
      manager: manager === undefined ? undefined : card.name,
      epoch: this.#epochs.highest,
      memoryPolicy: memoryPolicy.name,
      segmentTokens,
      blockTokens: format?.blockTokens ?? 0,
      blockBytes: format?.blockBytes ?? 0,
      reachableModelLen: this.engine?.reachableModelLen ?? 0,
    });
  }
}

function memoryOf(
  parts: FullParts | HolderParts,
  instance: Instance | undefined,
): ConstructorParameters<typeof LentMemory>[0]["memory"] {
  if (parts.kind === "holder") return parts;
  if (instance === undefined) throw new TypeError("Cannot lend the memory of an instance: wanted one, got none");
  return { kind: "own", format: parts.format, store: parts.device, pool: instance.engine.pool };
}
