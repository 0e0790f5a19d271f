/**
 * Links over HTTP/2. A link is two connections: one carries the control stream, on which the hello is spoken, and the
 * attention stream; the other carries the kv stream, so that attention never waits behind KV.
 *
 * The file is long because every event of a connection, a hello or a dial is weighed against the same tables.
 *
 * @module
 */
import {
  createSecureServer,
  createServer,
  type Http2SecureServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { checkPeer } from "../protocol/hello_checks.ts";
import { DuplicateLinkError } from "../protocol/handshake.ts";
import type { MemberCard } from "../protocol/member.ts";
import type { Lane } from "../protocol/messages.ts";
import { endInTurn } from "./end_in_turn.ts";
import type { HelloContext } from "./hello_context.ts";
import { Http2Acceptor, type Verdict } from "./http2_acceptor.ts";
import { Http2Dialler } from "./http2_dialler.ts";
import { Http2Link } from "./http2_link.ts";
import type { LaneStream } from "./lane_stream.ts";
import { checkListener, type Http2Network, type Http2NetworkOptions, type LinkCounters } from "./http2_options.ts";
import { type NetworkListener, PeerError } from "./link.ts";
import { DEFAULT_LINK_LIMITS, type SetTimer } from "./link_limits.ts";
import { PeerTable } from "./peer_table.ts";
import { SessionSet } from "./session_set.ts";
import { TlsHandshakes } from "./tls_handshakes.ts";

export type { Http2Network, Http2NetworkOptions, LinkCounters } from "./http2_options.ts";

/** Bytes that may be under way on the connection of attention and control. */
const WINDOW_BYTES = 16 * 2 ** 20;

/**
 * The same on the connection of kv: no more than takes a fraction of a millisecond to take in, and no less than a sender
 * that computes in slices of some milliseconds gives away in between.
 */
const KV_WINDOW_BYTES = 256 * 1024;

/** Streams a connection may have: control and attention, and one to turn away. */
const STREAMS = 4;

/**
 * Opens a member's network; it listens when this resolves.
 *
 * @throws {RangeError} when the address is wider than loopback and there is neither key nor certificates, when the key
 * is shorter than 32 bytes, or when an address that cannot be dialled would be advertised.
 * @throws {Error} when it cannot listen there.
 */
export async function openHttp2Network(options: Http2NetworkOptions): Promise<Http2Network> {
  checkListener(options);
  const { host, port, tls } = options;
  const settings = { initialWindowSize: WINDOW_BYTES, maxConcurrentStreams: STREAMS };
  const server = tls === undefined
    ? createServer({ settings })
    : createSecureServer({ settings, ...tls, requestCert: true, rejectUnauthorized: true });
  const network = new MemberNetwork(server, options, { settings });
  await network.start(host, port);
  return network;
}

const systemTimer: SetTimer = (task, ms) => {
  const id = setTimeout(task, ms);
  return () => clearTimeout(id);
};

class MemberNetwork implements Http2Network {
  readonly finished: Promise<void>;
  readonly counters: LinkCounters = {
    opened: 0,
    closed: 0,
    protocol: 0,
    auth: 0,
    refused: 0,
    unreachable: 0,
    turnedAway: 0,
  };
  readonly #server: Http2Server | Http2SecureServer;
  readonly #context: HelloContext;
  readonly #advertise: string | undefined;
  readonly #links = new PeerTable<Http2Link>();
  /** Dials under way by url. */
  readonly #dials = new Map<string, Http2Dialler>();
  /** Dials whose streams are being attached, by the peer's incarnation. */
  readonly #attaching = new Map<string, Http2Dialler>();
  /** Proven diallers that have not attached their streams yet, by incarnation, with own dials that gave way to them. */
  readonly #proven = new Map<string, { readonly accepted: Http2Acceptor; readonly urls: string[] }>();
  /** Accepted links whose streams may come, by name. */
  readonly #named = new Map<string, Http2Acceptor>();
  readonly #hellos = new Set<Http2Acceptor>();
  /** Accepted connections. */
  readonly #sessions: SessionSet;
  /** Accepted connections that are none of HTTP/2 yet; without certificates there are none. */
  readonly #handshakes: TlsHandshakes;
  /** Dialled connections that have not closed. */
  #dialled = 0;
  /** Whether the server still has something open. */
  #serving = true;
  #cancelLinger: (() => void) | undefined;
  /** Connections that belong to a hello or a link. */
  readonly #bound = new WeakSet<ServerHttp2Session>();
  /** Links that closed and were not told of yet. */
  readonly #ended: { readonly link: Http2Link; readonly reason: string }[] = [];
  #url = "";
  #listener: NetworkListener | undefined;
  #disposed = false;
  #finish: () => void;

  constructor(
    server: Http2Server | Http2SecureServer,
    options: Http2NetworkOptions,
    http2: HelloContext["http2"],
  ) {
    const { card, key, tls, epoch = () => 0, limits, setTimer = systemTimer, advertise } = options;
    const current = typeof card === "function" ? card : () => card;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.finished = promise;
    this.#finish = resolve;
    this.#server = server;
    this.#sessions = new SessionSet();
    this.#advertise = advertise;
    this.#context = {
      card: () => ({ ...current(), clusterUrl: this.#url }),
      key,
      tls,
      epoch,
      limits: { ...DEFAULT_LINK_LIMITS, ...limits },
      setTimer,
      randomBytes: (count) => new Uint8Array(randomBytes(count)),
      http2,
      windowBytes: WINDOW_BYTES,
      kvWindowBytes: KV_WINDOW_BYTES,
    };
    const { helloMs: ms, connections: most } = this.#context.limits;
    this.#handshakes = new TlsHandshakes({ ms, most, setTimer });
  }

  get url(): string {
    return this.#url;
  }

  async start(host: string, port: number): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#server.once("error", reject);
    this.#server.on("session", (session: ServerHttp2Session) => this.#connected(session));
    if (this.#context.tls !== undefined) {
      this.#server.on("connection", (socket: Socket) => {
        if (!this.#handshakes.begin(socket)) this.counters.turnedAway++;
      });
      this.#server.on("secureConnection", (socket: Socket) => this.#handshakes.end(socket));
    }
    this.#server.on("close", () => {
      this.#serving = false;
      this.#checkFinished();
    });
    this.#server.listen(port, host.replace(/^\[|\]$/g, ""), resolve);
    await promise;
    this.#server.off("error", reject);
    this.#server.on("error", () => {});
    const address = this.#server.address();
    const taken = typeof address === "object" && address !== null ? address.port : port;
    const scheme = this.#context.tls === undefined ? "http" : "https";
    const name = host.includes(":") && !host.startsWith("[") ? `[${host}]` : host;
    this.#url = this.#advertise ?? `${scheme}://${name}:${taken}`;
  }

  listen(listener: NetworkListener): void {
    if (this.#listener) throw new ReferenceError(`Cannot listen to ${this.url}: somebody does already`);
    this.#listener = listener;
  }

  dial(url: string): void {
    if (this.#disposed) throw new ReferenceError(`Cannot dial ${url}: the network is disposed`);
    if (this.#dials.has(url)) return;
    const scheme = this.#context.tls === undefined ? "http:" : "https:";
    if (!URL.canParse(url) || new URL(url).protocol !== scheme) {
      const error = new PeerError(`Cannot dial ${url}: wanted ${scheme}//HOST:PORT`, { code: "unreachable" });
      queueMicrotask(() => this.#dialFailed(url, error));
      return;
    }
    const dial = new Http2Dialler(url, this.#context, {
      connected: (session) => {
        this.#dialled++;
        session.once("close", () => {
          this.#dialled--;
          this.#checkFinished();
        });
      },
      proven: (dial, card) => this.#dialProven(dial, card),
      attached: (dial, card, lanes) => {
        this.#dials.delete(url);
        this.#attaching.delete(card.incarnation);
        this.#open(card, lanes, () => dial.destroy());
      },
      failed: (dial, error) => {
        this.#dials.delete(url);
        for (const [incarnation, other] of this.#attaching) {
          if (other === dial) this.#attaching.delete(incarnation);
        }
        if (error instanceof DuplicateLinkError && this.#expects(error.incarnation, url)) return;
        this.#dialFailed(url, error);
      },
    });
    this.#dials.set(url, dial);
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    for (const link of this.#links.links()) link[Symbol.dispose]();
    this.#disposed = true;
    for (const dial of this.#dials.values()) dial.abandon();
    for (const hello of this.#hellos) hello.abandon();
    this.#server.close();
    this.#handshakes.destroy();
    // Links linger for a moment so that what they said last arrives; everything else has gone by now.
    this.#cancelLinger = this.#context.setTimer(() => this.#sessions.destroy(), this.#context.limits.lingerMs);
    this.#checkFinished();
  }

  #checkFinished(): void {
    if (!this.#disposed || this.#serving || this.#sessions.size > 0 || this.#dialled > 0) return;
    this.#cancelLinger?.();
    this.#finish();
  }

  #connected(session: ServerHttp2Session): void {
    endInTurn(session, this.#context.setTimer);
    session.on("error", () => session.destroy());
    const { limits, setTimer } = this.#context;
    if (this.#disposed || this.#sessions.size >= limits.connections) {
      this.counters.turnedAway++;
      session.destroy();
      return;
    }
    session.on("stream", (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
      stream.on("error", () => stream.destroy());
      this.#streamed(session, stream, headers);
    });
    this.#sessions.add(session);
    const cancel = setTimer(() => this.#bound.has(session) || session.destroy(), limits.helloMs);
    session.once("close", () => {
      cancel();
      this.#checkFinished();
    });
  }

  #streamed(session: ServerHttp2Session, stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
    const match = /^\/cluster\/(?:control|(attention|kv)\/([0-9a-f]{32}))$/.exec(String(headers[":path"]));
    if (match === null || headers[":method"] !== "POST") {
      this.#turnAway(session, stream);
    } else if (match[1] === undefined) {
      if (this.#bound.has(session)) this.#turnAway(session, stream);
      else this.#hello(session, stream);
    } else {
      stream.respond({ ":status": 200 });
      this.#bound.add(session);
      const lane = match[1] === "kv" ? "kv" : "attention";
      if (this.#named.get(match[2])?.attach(lane, session, stream)) return;
      session.destroy();
    }
  }

  /** Answers a request that is none of a member and drops its connection: a stream is never ended, see LaneStream. */
  #turnAway(session: ServerHttp2Session, stream: ServerHttp2Stream): void {
    this.counters.turnedAway++;
    stream.respond({ ":status": 404 });
    session.destroy();
  }

  #hello(session: ServerHttp2Session, stream: ServerHttp2Stream): void {
    stream.respond({ ":status": 200 });
    session.setLocalWindowSize(this.#context.windowBytes);
    this.#bound.add(session);
    const accepted = new Http2Acceptor(session, stream, this.#context, {
      proven: (accepted, card) => this.#acceptProven(accepted, card),
      named: (accepted, name) => this.#named.set(name, accepted),
      admits: (_, card) => this.#admits(card),
      attached: (accepted, card, lanes) => {
        this.#forget(accepted, card.incarnation);
        this.#open(card, lanes, () => accepted.destroy());
      },
      failed: (accepted, error) => {
        this.#count(error);
        for (const url of this.#forget(accepted)) this.#dialFailed(url, error);
      },
    });
    if (this.#hellos.size >= this.#context.limits.openHellos) {
      this.counters.turnedAway++;
      accepted.turnAway();
      return;
    }
    this.#hellos.add(accepted);
  }

  #acceptProven(accepted: Http2Acceptor, card: MemberCard): Verdict {
    try {
      checkPeer(this.#context.card(), card);
      const { kind } = this.#links.admit(card);
      if (kind === "duplicate" || this.#attaching.has(card.incarnation)) {
        return { kind: "refuse", code: "duplicate", why: this.#context.card().incarnation };
      }
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
      return { kind: "refuse", code: "refused", why: error.message };
    }
    const earlier = this.#proven.get(card.incarnation);
    earlier?.accepted.abandon();
    if (earlier !== undefined) this.#hellos.delete(earlier.accepted);
    this.#proven.set(card.incarnation, { accepted, urls: earlier?.urls ?? [] });
    return { kind: "accept" };
  }

  /** Takes a hello off the lists and returns the own dials that had given way to it and fail with it. */
  #forget(accepted: Http2Acceptor, opened?: string): readonly string[] {
    this.#hellos.delete(accepted);
    for (const [name, other] of this.#named) {
      if (other === accepted) this.#named.delete(name);
    }
    for (const [incarnation, proven] of this.#proven) {
      if (proven.accepted !== accepted) continue;
      this.#proven.delete(incarnation);
      if (incarnation !== opened) return proven.urls;
    }
    return [];
  }

  /** Decides what becomes of a dial whose peer is known now. */
  #dialProven(dial: Http2Dialler, card: MemberCard): boolean {
    const own = this.#context.card();
    checkPeer(own, card);
    if (this.#links.admit(card).kind === "duplicate" || this.#attaching.has(card.incarnation)) {
      this.#giveWay(dial);
      return false;
    }
    const proven = this.#proven.get(card.incarnation);
    if (proven !== undefined) {
      // Both dialled at once, and each side knows of both links: the smaller incarnation's stays.
      if (card.incarnation < own.incarnation) {
        proven.urls.push(dial.url);
        this.#giveWay(dial);
        return false;
      }
      proven.accepted.abandon();
      this.#forget(proven.accepted);
    }
    this.#attaching.set(card.incarnation, dial);
    return true;
  }

  #giveWay(dial: Http2Dialler): void {
    this.#dials.delete(dial.url);
    dial.abandon();
  }

  /** Whether there is or will be a link to this incarnation without the dial to `url`. */
  #expects(incarnation: string, url: string): boolean {
    const proven = this.#proven.get(incarnation);
    proven?.urls.push(url);
    return proven !== undefined || this.#attaching.has(incarnation) ||
      this.#links.links().some(({ peer }) => peer.incarnation === incarnation);
  }

  #dialFailed(url: string, error: PeerError): void {
    if (this.#disposed) return;
    this.#count(error);
    this.#listener?.failed(url, error);
  }

  #admits(card: MemberCard): boolean {
    try {
      return this.#links.admit(card).kind !== "duplicate";
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
      return false;
    }
  }

  #open(card: MemberCard, lanes: Readonly<Record<Lane, LaneStream>>, destroy: () => void): void {
    const admission = this.#links.admit(card);
    if (admission.kind === "replace") admission.link[Symbol.dispose]();
    const { epoch, limits, setTimer } = this.#context;
    const link = new Http2Link({
      peer: card,
      card: this.#context.card,
      epoch,
      limits,
      setTimer,
      lanes,
      destroy,
      received: (link, envelope) => {
        if (!this.#disposed) this.#listener?.received(link, envelope);
      },
      ended: (link, error) => {
        this.#links.remove(link);
        this.counters.closed++;
        this.#count(error);
        this.#ended.push({ link, reason: error.message });
        queueMicrotask(() => this.#tellEnded());
      },
    });
    this.#links.add(link);
    this.counters.opened++;
    this.#tellEnded();
    if (!this.#disposed) this.#listener?.opened(link);
  }

  /** Tells of links that closed, which may have happened inside a call to the network. */
  #tellEnded(): void {
    for (const { link, reason } of this.#ended.splice(0)) {
      if (!this.#disposed) this.#listener?.closed(link, reason);
    }
  }

  #count(error: PeerError): void {
    if (error.code !== "closed") this.counters[error.code]++;
  }
}
