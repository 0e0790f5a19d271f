/**
 * The side of a hello over HTTP/2 that dials.
 *
 * @module
 */
import { type ClientHttp2Session, connect } from "node:http2";
import type { Frame } from "../protocol/frame.ts";
import { FrameSealer } from "../protocol/frame_sealer.ts";
import { DiallerHandshake, type ProvenPeer } from "../protocol/handshake.ts";
import type { MemberCard } from "../protocol/member.ts";
import type { Lane } from "../protocol/messages.ts";
import { NONCE_BYTES } from "../protocol/session_keys.ts";
import { endInTurn } from "./end_in_turn.ts";
import type { HelloContext } from "./hello_context.ts";
import { LaneStream } from "./lane_stream.ts";
import { PeerError } from "./link.ts";
import { SessionSet } from "./session_set.ts";

/** What a dial tells its network. */
export interface DialHandler {
  /** A connection was begun. */
  connected(session: ClientHttp2Session): void;
  /**
   * The peer has proved who it is. Says whether to go on; the network has told what there is to tell when not.
   *
   * @throws {PeerError} when the peer does not fit.
   */
  proven(dial: Http2Dialler, card: MemberCard): boolean;
  /** All streams are attached on both sides. */
  attached(dial: Http2Dialler, card: MemberCard, lanes: Readonly<Record<Lane, LaneStream>>): void;
  /** The dial came to nothing. */
  failed(dial: Http2Dialler, error: PeerError): void;
}

/** Dials one url. */
export class Http2Dialler {
  /** Where it dials. */
  readonly url: string;
  readonly #context: HelloContext;
  readonly #handler: DialHandler;
  readonly #sessions: SessionSet;
  readonly #first: ClientHttp2Session;
  readonly #handshake: DiallerHandshake;
  readonly #cancelTimer: () => void;
  #done = false;

  /** Begins. @throws {TypeError} when `url` is none that can be dialled. */
  constructor(url: string, context: HelloContext, handler: DialHandler) {
    this.url = url;
    this.#context = context;
    this.#handler = handler;
    this.#handshake = new DiallerHandshake({
      card: context.card(),
      key: context.key,
      nonce: context.randomBytes(NONCE_BYTES),
    });
    const { dialMs } = context.limits;
    this.#cancelTimer = context.setTimer(
      () => this.#fail(new PeerError(`Cannot reach ${url} in ${dialMs} ms`, { code: "unreachable" })),
      dialMs,
    );
    this.#sessions = new SessionSet();
    this.#first = this.#connect();
    this.#first.on("connect", () => {
      if (!this.#first.destroyed) this.#first.setLocalWindowSize(context.windowBytes);
    });
    const stream = this.#first.request({ ":method": "POST", ":path": "/cluster/control" });
    const control: LaneStream = new LaneStream(stream, {
      expect: { lane: "hello", maxPayloadBytes: context.limits.frame.hello },
      sealer: new FrameSealer("hello"),
      handler: {
        frame: (frame) => this.#guard(() => this.#hello(frame, control)),
        over: (error) => this.#fail(unanswered(url, error, context)),
      },
    });
    control.sendSealed(this.#handshake.start());
  }

  /** Gives the dial up; nothing more is told. */
  abandon(): void {
    this.#done = true;
    this.#cancelTimer();
    this.destroy();
  }

  /** Breaks the connections. */
  destroy(): void {
    this.#sessions.destroy();
  }

  #connect(): ClientHttp2Session {
    // Said outright: an environment variable of node's turns the default off.
    const session = connect(this.url, { ...this.#context.http2, ...this.#context.tls, rejectUnauthorized: true });
    session.once("connect", () => endInTurn(session, this.#context.setTimer));
    this.#sessions.add(session);
    this.#handler.connected(session);
    session.on("error", (cause: Error) => this.#fail(unreachable(this.url, cause)));
    return session;
  }

  #hello(frame: Frame, control: LaneStream): void {
    const step = this.#handshake.receive(frame);
    if (step.kind === "send") {
      control.sendSealed(step.frame);
      return;
    }
    const { peer, link } = step;
    if (!this.#handler.proven(this, peer.card)) return;
    const { limits } = this.#context;
    const name = link.toHex();
    const opened = (frame: Frame) => {
      if (frame.type !== "open") {
        throw new PeerError(`Cannot link: wanted open, got ${frame.type}`, { code: "protocol" });
      }
      this.#finish(peer, { control, attention, kv });
    };
    control.become({
      expect: { lane: "control", key: peer.keys("control", "acceptor"), maxPayloadBytes: limits.frame.control },
      sealer: new FrameSealer("control", peer.keys("control", "dialler")),
      handler: {
        frame: (frame) => this.#guard(() => opened(frame)),
        over: (error) => this.#fail(unreachable(this.url, error)),
      },
    });
    const attention = this.#attach(this.#first, { lane: "attention", name, peer });
    const second = this.#connect();
    second.on("connect", () => {
      if (!second.destroyed) second.setLocalWindowSize(this.#context.kvWindowBytes);
    });
    const kv = this.#attach(second, { lane: "kv", name, peer });
  }

  #attach(
    session: ClientHttp2Session,
    { lane, name, peer }: { readonly lane: "attention" | "kv"; readonly name: string; readonly peer: ProvenPeer },
  ): LaneStream {
    const stream = session.request({ ":method": "POST", ":path": `/cluster/${lane}/${name}` });
    const attached = new LaneStream(stream, {
      expect: { lane, key: peer.keys(lane, "acceptor"), maxPayloadBytes: this.#context.limits.frame[lane] },
      sealer: new FrameSealer(lane, peer.keys(lane, "dialler")),
      handler: {
        frame: (frame) => {
          this.#fail(new PeerError(`Cannot link: wanted nothing yet, got ${frame.type}`, { code: "protocol" }));
        },
        over: (error) => this.#fail(unreachable(this.url, error)),
      },
    });
    attached.sendEmpty("attach", this.#context.epoch());
    return attached;
  }

  #finish(peer: ProvenPeer, lanes: Readonly<Record<Lane, LaneStream>>): void {
    if (this.#done) return;
    this.#done = true;
    this.#cancelTimer();
    this.#handler.attached(this, peer.card, lanes);
  }

  #guard(action: () => void): void {
    if (this.#done) return;
    try {
      action();
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
      this.#fail(error);
    }
  }

  #fail(error: PeerError): void {
    if (this.#done) return;
    this.abandon();
    this.#handler.failed(this, error);
  }
}

/**
 * The same for a peer that has said nothing yet. With TLS 1.3 the dialler's handshake is over before the peer has seen its
 * certificate, so one that is refused shows as a connection that ends.
 */
function unanswered(url: string, error: Error, { tls }: HelloContext): PeerError {
  const failed = unreachable(url, error);
  const named = error.cause !== undefined || (error instanceof PeerError && error.code !== "closed");
  if (tls === undefined || named) return failed;
  const message = `${failed.message} before its hello; it may not take this member's certificate`;
  return new PeerError(message, { code: "unreachable", cause: error });
}

/** An error of a dial that names the url and the first cause. */
function unreachable(url: string, error: Error): PeerError {
  if (error instanceof PeerError && error.code !== "closed") return error;
  let root = error;
  while (root.cause instanceof Error) root = root.cause;
  const auth = "code" in root && /CERT|SELF_SIGNED|ISSUER|VERIFY|ALTNAME/.test(String(root.code));
  return new PeerError(`Cannot reach ${url}: ${root.message}`, { code: auth ? "auth" : "unreachable", cause: error });
}
