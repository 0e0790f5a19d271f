/**
 * Links between members of one thread: the same contract and the same checks as over the network, without sockets.
 *
 * @module
 */
import type { FrameTypeName } from "../protocol/frame.ts";
import { FRAME_HEADER_BYTES } from "../protocol/frame.ts";
import { FrameWriter } from "../protocol/frame_writer.ts";
import { checkPeer } from "../protocol/hello_checks.ts";
import { cutPieces } from "../protocol/kv_codec.ts";
import type { KvFormat, MemberCard } from "../protocol/member.ts";
import { encodeMessage, type LaneMessage, type Receipt, receiveMessage } from "../protocol/message_codec.ts";
import type { ControlMessage, KvMessage, Lane } from "../protocol/messages.ts";
import { type AttentionLink, type Network, type NetworkListener, PeerError, type PeerLink } from "./link.ts";
import { PeerTable } from "./peer_table.ts";

/** How a hub delivers. */
export interface InProcessHubOptions {
  /** Runs a task later, never at once. Tasks may run in any order: messages of one lane keep theirs. */
  readonly defer: (task: () => void) => void;
}

/** How a member joins a hub. */
export interface InProcessMemberOptions {
  /** Card of the member as it is now; its name, incarnation and url stay. */
  readonly card: MemberCard | (() => MemberCard);
  /** Highest epoch of a gManager that the member has seen. @default () => 0 */
  readonly epoch?: () => number;
}

/** Connects members of one thread by their urls. */
export class InProcessHub {
  readonly #networks = new Map<string, InProcessNetwork>();
  readonly #defer: (task: () => void) => void;

  /** Makes a hub without members. */
  constructor({ defer }: InProcessHubOptions) {
    this.#defer = defer;
  }

  /** Adds a member; it leaves when its network is disposed. @throws {RangeError} when its url is taken. */
  join({ card, epoch = () => 0 }: InProcessMemberOptions): Network {
    const network = new InProcessNetwork({
      card: typeof card === "function" ? card : () => card,
      epoch,
      defer: this.#defer,
      find: (url) => this.#networks.get(url),
      leave: () => this.#networks.delete(network.url),
    });
    if (this.#networks.has(network.url)) {
      throw new RangeError(`Cannot join hub: wanted a url of its own, got ${network.url}`);
    }
    this.#networks.set(network.url, network);
    return network;
  }
}

interface InProcessNetworkOptions {
  readonly card: () => MemberCard;
  readonly epoch: () => number;
  readonly defer: (task: () => void) => void;
  readonly find: (url: string) => InProcessNetwork | undefined;
  readonly leave: () => void;
}

class InProcessNetwork implements Network {
  readonly url: string;
  readonly #options: InProcessNetworkOptions;
  readonly #table = new PeerTable<InProcessLink>();
  readonly #dialling = new Set<string>();
  #listener: NetworkListener | undefined;
  #disposed = false;

  constructor(options: InProcessNetworkOptions) {
    this.#options = options;
    this.url = options.card().clusterUrl;
  }

  get table(): PeerTable<InProcessLink> {
    return this.#table;
  }

  get listener(): NetworkListener | undefined {
    return this.#disposed ? undefined : this.#listener;
  }

  get options(): InProcessNetworkOptions {
    return this.#options;
  }

  listen(listener: NetworkListener): void {
    if (this.#listener) throw new ReferenceError(`Cannot listen to ${this.url}: somebody does already`);
    this.#listener = listener;
  }

  dial(url: string): void {
    if (this.#disposed) throw new ReferenceError(`Cannot dial ${url}: the network is disposed`);
    if (this.#dialling.has(url)) return;
    this.#dialling.add(url);
    this.#options.defer(() => {
      this.#dialling.delete(url);
      if (this.#disposed) return;
      try {
        this.#connect(url);
      } catch (error) {
        if (!(error instanceof PeerError)) throw error;
        this.#listener?.failed(url, error);
      }
    });
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    for (const link of this.#table.links()) link[Symbol.dispose]();
    this.#disposed = true;
    this.#options.leave();
  }

  #connect(url: string): void {
    const other = this.#options.find(url);
    if (other === undefined) {
      throw new PeerError(`Cannot reach ${url}: nobody listens there`, { code: "unreachable" });
    }
    const card = this.#options.card();
    const peer = other.#options.card();
    checkPeer(card, peer);
    const here = this.#table.admit(peer);
    const there = other.#table.admit(card);
    if (here.kind === "duplicate" || there.kind === "duplicate") return;
    if (here.kind === "replace") here.link[Symbol.dispose]();
    if (there.kind === "replace") there.link[Symbol.dispose]();
    const mine = new InProcessLink(this, peer);
    const its = new InProcessLink(other, card);
    mine.connect(its);
    its.connect(mine);
    this.#table.add(mine);
    other.#table.add(its);
    this.#options.defer(() => mine.tellOpened());
    other.#options.defer(() => its.tellOpened());
  }
}

/** A message on its way. */
interface Parcel {
  readonly type: FrameTypeName;
  readonly payload: Uint8Array;
  readonly epoch: number;
}

class InProcessLink implements PeerLink {
  readonly peer: MemberCard;
  readonly attention: AttentionLink;
  readonly #network: InProcessNetwork;
  readonly #writer = new FrameWriter();
  readonly #inbox: Readonly<Record<Lane, Parcel[]>> = { attention: [], control: [], kv: [] };
  #kvBacklog = 0;
  #other: InProcessLink | undefined;
  #state: "opening" | "open" | "closed" = "opening";
  #format: KvFormat | undefined;

  constructor(network: InProcessNetwork, peer: MemberCard) {
    this.#network = network;
    this.peer = peer;
    this.attention = { send: (message) => this.#send({ lane: "attention", message }) };
  }

  get kvBacklog(): number {
    return this.#kvBacklog;
  }

  connect(other: InProcessLink): void {
    this.#other = other;
  }

  tellOpened(): void {
    if (this.#state !== "opening") return;
    this.#state = "open";
    this.#network.listener?.opened(this);
    for (const lane of ["control", "attention", "kv"] satisfies Lane[]) {
      for (let waiting = this.#inbox[lane].length; waiting > 0; waiting--) this.#later(lane);
    }
  }

  control(message: ControlMessage): void {
    this.#send({ lane: "control", message });
  }

  kv(message: KvMessage): void {
    for (const piece of cutPieces(message)) this.#send({ lane: "kv", message: piece });
  }

  [Symbol.dispose](): void {
    this.#close(`${this.peer.name} was let go`);
  }

  #send(of: LaneMessage): void {
    const other = this.#other;
    if (this.#state === "closed" || other === undefined) {
      throw new PeerError(`Cannot send ${of.message.kind} to ${this.peer.name}: the link is closed`, {
        code: "closed",
      });
    }
    const type = encodeMessage(this.#writer, of);
    if (other.#state === "closed") return;
    const payload = this.#writer.buffer.slice(FRAME_HEADER_BYTES, this.#writer.length);
    other.#inbox[of.lane].push({ type, payload, epoch: this.#network.options.epoch() });
    if (of.lane === "kv") this.#kvBacklog += payload.length;
    if (other.#state === "open") other.#later(of.lane);
  }

  #later(lane: Lane): void {
    this.#network.options.defer(() => this.#deliver(lane));
  }

  #deliver(lane: Lane): void {
    const parcel = this.#inbox[lane].shift();
    if (parcel === undefined || this.#state !== "open") return;
    if (lane === "kv" && this.#other) this.#other.#kvBacklog -= parcel.payload.length;
    const own = this.#network.options.card();
    this.#format ??= this.peer.format ?? own.format;
    const receipt = this.#open(lane, parcel);
    if (receipt === undefined) return;
    if (receipt.kind === "answer") {
      this.#send(lane === "kv" ? { lane, message: receipt.refused } : { lane: "attention", message: receipt.refused });
      return;
    }
    const { name, incarnation } = this.peer;
    this.#network.listener?.received(this, {
      from: { name, incarnation },
      to: { name: own.name, incarnation: own.incarnation },
      epoch: parcel.epoch,
      message: receipt.message,
    });
  }

  /** What to do with a parcel; nothing when the peer broke the protocol and the link is closed for it. */
  #open(lane: Lane, parcel: Parcel): Receipt | undefined {
    try {
      return receiveMessage(lane, parcel, this.#format);
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
      this.#close(error.message);
    }
  }

  /** Closes this end at once and the other after what was sent to it before. `closed` is told later. */
  #close(reason: string): void {
    const other = this.#other;
    if (!this.#shut(reason) || other === undefined) return;
    this.#network.options.defer(() => other.#shut(`${other.peer.name} closed the link`));
  }

  /** Closes this end; false when it was closed already. */
  #shut(reason: string): boolean {
    if (this.#state === "closed") return false;
    const wasOpen = this.#state === "open";
    this.#network.table.remove(this);
    this.#state = "closed";
    this.#network.options.defer(() => {
      if (wasOpen) this.#network.listener?.closed(this, reason);
    });
    return true;
  }
}
