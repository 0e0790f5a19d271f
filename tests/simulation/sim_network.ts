/**
 * The wires of a simulated world: links between processes, and everything that happens to them.
 *
 * @module
 */
import { type Network, type NetworkListener, PeerError } from "../../scheduler/links/link.ts";
import { PeerTable } from "../../scheduler/links/peer_table.ts";
import { checkPeer } from "../../scheduler/protocol/hello_checks.ts";
import type { MemberCard } from "../../scheduler/protocol/member.ts";
import type { LaneMessage } from "../../scheduler/protocol/message_codec.ts";
import type { NodeClock } from "./node_clock.ts";
import type { Random } from "./random.ts";
import { type Parcel, SimLink, spoilReply } from "./sim_link.ts";
import type { VirtualTime } from "./virtual_time.ts";
import { CALM, type Weather } from "./weather.ts";

/** How a process is wired up. */
export interface EndpointOptions {
  /** Card as it is now; name, incarnation and url stay. */
  readonly card: () => MemberCard;
  /** Highest epoch the process has seen. */
  readonly epoch: () => number;
  /** Its clock. */
  readonly clock: NodeClock;
}

/** Time after which a dial into silence fails, ms. */
const DIAL_TIMEOUT_MS = 1000;

/** Time after a loss in which a link closes, ms. */
const LOSS_NOTICE_MS = 30;

/** All links. Names, not incarnations, are clogged: the wire does not know who was started anew. */
export class SimNetwork {
  /** What the wires do to messages. */
  weather: Weather = CALM;
  readonly #time: VirtualTime;
  readonly #random: Random;
  readonly #faults: Random;
  readonly #endpoints = new Map<string, SimEndpoint>();
  /** Directions in which nothing passes, `from>to`, with what waits for that to end. */
  readonly #clogs = new Map<string, (() => void)[]>();

  /** Makes wires without processes. */
  constructor(time: VirtualTime, random: Random) {
    this.#time = time;
    this.#random = random.stream("delays");
    this.#faults = random.stream("wires");
  }

  /** Processes that are wired up. */
  get endpoints(): readonly SimEndpoint[] {
    return [...this.#endpoints.values()];
  }

  /** Wires a process up. Whoever was at its url before is cut off. */
  join(options: EndpointOptions): SimEndpoint {
    const endpoint = new SimEndpoint(this, options);
    this.#endpoints.set(endpoint.url, endpoint);
    return endpoint;
  }

  /** Lets nothing pass from one name to another. */
  clog(from: string, to: string): void {
    const key = `${from}>${to}`;
    if (!this.#clogs.has(key)) this.#clogs.set(key, []);
  }

  /** Lets pass again; what waited arrives late, in order. */
  unclog(from: string, to: string): void {
    const key = `${from}>${to}`;
    const waiting = this.#clogs.get(key);
    this.#clogs.delete(key);
    for (const run of waiting ?? []) run();
  }

  /** Ends every clog. */
  unclogAll(): void {
    for (const key of [...this.#clogs.keys()]) {
      const [from, to] = key.split(">");
      this.unclog(from, to);
    }
  }

  /** Directions in which nothing passes. */
  get clogged(): readonly string[] {
    return [...this.#clogs.keys()];
  }

  /** Open links, one of the two ends each. */
  get links(): readonly SimLink[] {
    return this.endpoints.flatMap(({ table }) => table.links()).filter((link) =>
      link.endpoint.card.name < link.peer.name || link.other.state === "closed"
    );
  }

  /** Cuts a link: this end sees it at once, the other after `noticeMs`. */
  cut(link: SimLink, noticeMs: number): void {
    this.#shut(link, "connection reset");
    this.#time.after(noticeMs, `${link.peer.name} notices a reset`, () => this.#shut(link.other, "connection reset"));
  }

  /** Closes an end, as its owner asks; the other sees it when the wire brings it. */
  close(link: SimLink, reason: string): void {
    if (link.state === "closed") return;
    this.#shut(link, reason);
    // What was sent before comes before.
    const delayMs = Math.max(this.#delay(), ...Object.values(link.dueMs).map((dueMs) => dueMs - this.#time.nowMs));
    this.#bring(link, { delayMs, label: "close" }, () => this.#shut(link.other, "closed by peer"));
  }

  /**
   * Takes a dead process off the wires. Others see their links closed after a moment; when its whole host is down, after
   * `noticeMs`.
   */
  remove(endpoint: SimEndpoint, noticeMs: number): void {
    if (this.#endpoints.get(endpoint.url) === endpoint) this.#endpoints.delete(endpoint.url);
    for (const link of endpoint.table.links()) {
      endpoint.table.remove(link);
      link.state = "closed";
      this.#bring(link, { delayMs: noticeMs, label: "reset" }, () => this.#shut(link.other, "connection reset"));
    }
  }

  /** Sends a parcel from one end. */
  transmit(link: SimLink, parcel: Parcel): void {
    const { mode, loss, duplicate, late, lateMs } = this.weather;
    const bytes = parcel.lane === "kv" ? parcel.payload.length : 0;
    link.kvBacklog += bytes;
    if (mode === "stream") {
      link.dueMs[parcel.lane] = Math.max(link.dueMs[parcel.lane], this.#time.nowMs + this.#delay());
      this.#bring(
        link,
        { delayMs: link.dueMs[parcel.lane] - this.#time.nowMs, label: parcel.label },
        () => {
          link.kvBacklog -= bytes;
          this.#hand(link.other, parcel);
        },
      );
      return;
    }
    if (this.#faults.chance(loss)) {
      link.kvBacklog -= bytes;
      this.#time.note(`lost: ${parcel.from.name}>${parcel.to.name} ${parcel.label}`);
      // Links promise to close when they lose something; what comes in between is up to them.
      const delayMs = this.#faults.real(0, LOSS_NOTICE_MS);
      this.#time.after(delayMs, "cut after a loss", () => this.cut(link, this.#faults.real(0, LOSS_NOTICE_MS)));
      return;
    }
    for (let copy = this.#faults.chance(duplicate) ? 1 : 0; copy >= 0; copy--) {
      const delayMs = this.#delay() + (this.#faults.chance(late) ? this.#faults.real(0, lateMs) : 0);
      this.#bring(link, { delayMs, label: parcel.label }, () => {
        if (copy === 0) link.kvBacklog -= bytes;
        const receiver = this.#receiverNow(link.other);
        if (receiver) this.#hand(receiver, { ...parcel, payload: parcel.payload.slice() });
      });
    }
  }

  /** A message as it leaves a sender whose memory or mind is not sound. */
  tamper(of: LaneMessage): LaneMessage {
    const { corrupt, lie } = this.weather;
    if (of.lane === "kv" && of.message.kind === "piece" && corrupt > 0 && this.#faults.chance(corrupt)) {
      const bytes = of.message.bytes.slice();
      bytes[this.#faults.integer(0, bytes.length - 1)] ^= 1 << this.#faults.integer(0, 7);
      this.#time.note("corrupted piece");
      return { ...of, message: { ...of.message, bytes } };
    }
    if (of.lane === "attention" && of.message.kind === "partials" && lie > 0 && this.#faults.chance(lie)) {
      this.#time.note("spoiled partials");
      return { ...of, message: spoilReply(of.message, this.#faults.pick(["not-finite", "short"])) };
    }
    return of;
  }

  /** Dials for a process. */
  connect(from: SimEndpoint, url: string, over: () => void): void {
    const there = this.#endpoints.get(url);
    const fail = (error: PeerError, delayMs: number) =>
      this.#time.after(delayMs, `${from.card.name} cannot reach ${url}`, () => {
        over();
        from.clock.run(() => from.listener?.failed(url, error));
      });
    if (there === undefined) {
      fail(new PeerError(`Cannot reach ${url}: nobody listens there`, { code: "unreachable" }), this.#delay());
      return;
    }
    const [a, b] = [from.card.name, there.card.name];
    if (this.#clogs.has(`${a}>${b}`) || this.#clogs.has(`${b}>${a}`) || there.clock.state === "paused") {
      fail(new PeerError(`Cannot reach ${url}: no answer`, { code: "unreachable" }), DIAL_TIMEOUT_MS);
      return;
    }
    if (this.#faults.chance(this.weather.refuse)) {
      fail(new PeerError(`Cannot reach ${url}: refused`, { code: "refused" }), this.#delay());
      return;
    }
    this.#time.after(this.#delay() * 3, `${a} dials ${b}`, () => {
      over();
      if (from.clock.state === "dead") return;
      try {
        this.#link(from, url);
      } catch (error) {
        if (!(error instanceof PeerError)) throw error;
        from.clock.run(() => from.listener?.failed(url, error));
      }
    });
  }

  #link(from: SimEndpoint, url: string): void {
    const there = this.#endpoints.get(url);
    if (there === undefined) throw new PeerError(`Cannot reach ${url}: it has just gone`, { code: "unreachable" });
    checkPeer(from.card, there.card);
    const here = from.table.admit(there.card);
    if (here.kind === "duplicate") return;
    const far = there.table.admit(from.card);
    if (far.kind === "duplicate") {
      throw new PeerError(`Cannot reach ${url}: it has not noticed yet that the link is down`, { code: "refused" });
    }
    if (here.kind === "replace") here.link[Symbol.dispose]();
    if (far.kind === "replace") far.link[Symbol.dispose]();
    const mine = new SimLink(from, there.card);
    const its = new SimLink(there, from.card);
    mine.connect(its);
    its.connect(mine);
    for (const link of [mine, its]) {
      link.endpoint.table.add(link);
      link.endpoint.clock.run(() => {
        if (link.state === "opening") {
          link.state = "open";
          link.endpoint.listener?.opened(link);
        } else if (link === mine) {
          // Closed before its dialler came to see it.
          from.listener?.failed(url, new PeerError(`Cannot reach ${url}: it hung up`, { code: "closed" }));
        }
      });
    }
  }

  /** Lets something arrive at the other end of a link: after a while, and not before the way is free. */
  #bring(link: SimLink, when: { readonly delayMs: number; readonly label: string }, run: () => void): void {
    const [from, to] = [link.endpoint.card.name, link.peer.name];
    const arrive = () => {
      const clog = this.#clogs.get(`${from}>${to}`);
      if (clog === undefined) run();
      else clog.push(() => this.#time.after(0, `${from}>${to} late ${when.label}`, arrive));
    };
    this.#time.after(when.delayMs, `${from}>${to} ${when.label}`, arrive);
  }

  #hand(link: SimLink, parcel: Parcel): void {
    link.endpoint.clock.run(() => {
      if (link.state === "open") link.deliver(parcel);
    });
  }

  /** The end at which a late datagram arrives: that of the link it was sent on, or of the one between the names now. */
  #receiverNow(end: SimLink): SimLink | undefined {
    if (end.state !== "closed") return end;
    return this.#endpoints.get(end.endpoint.url)?.table.links().find(({ peer }) => peer.name === end.peer.name);
  }

  #shut(link: SimLink, reason: string): void {
    if (link.state === "closed") return;
    const wasOpen = link.state === "open";
    link.state = "closed";
    link.endpoint.table.remove(link);
    if (!wasOpen) return;
    this.#time.after(0, `${link.endpoint.card.name} sees ${link.peer.name} closed`, () => {
      link.endpoint.clock.run(() => link.endpoint.listener?.closed(link, reason));
    });
  }

  #delay(): number {
    const { delayMs, jitterMs } = this.weather;
    return delayMs + this.#random.exponential(jitterMs);
  }
}

/** The network as one process has it. */
export class SimEndpoint implements Network {
  /** See {@linkcode Network.url}. */
  readonly url: string;
  /** The wires. */
  readonly network: SimNetwork;
  /** Its open links. */
  readonly table: PeerTable<SimLink> = new PeerTable<SimLink>();
  readonly #options: EndpointOptions;
  readonly #dialling = new Set<string>();
  #listener: NetworkListener | undefined;
  #disposed = false;

  /** Is made by {@linkcode SimNetwork.join}. */
  constructor(network: SimNetwork, options: EndpointOptions) {
    this.network = network;
    this.#options = options;
    this.url = options.card().clusterUrl;
  }

  /** Card as it is now. */
  get card(): MemberCard {
    return this.#options.card();
  }

  /** Clock of the process. */
  get clock(): NodeClock {
    return this.#options.clock;
  }

  /** Whoever is told. */
  get listener(): NetworkListener | undefined {
    return this.#disposed ? undefined : this.#listener;
  }

  /** Highest epoch the process has seen. */
  epoch(): number {
    return this.#options.epoch();
  }

  /** See {@linkcode Network.listen}. */
  listen(listener: NetworkListener): void {
    if (this.#listener) throw new ReferenceError(`Cannot listen to ${this.url}: somebody does already`);
    this.#listener = listener;
  }

  /** See {@linkcode Network.dial}. */
  dial(url: string): void {
    if (this.#disposed) throw new ReferenceError(`Cannot dial ${url}: the network is disposed`);
    if (this.#dialling.has(url)) return;
    this.#dialling.add(url);
    this.network.connect(this, url, () => this.#dialling.delete(url));
  }

  /** Closes every link and takes the process off the wires. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    for (const link of this.table.links()) this.network.close(link, "let go");
    this.#disposed = true;
    this.network.remove(this, 0);
  }
}
