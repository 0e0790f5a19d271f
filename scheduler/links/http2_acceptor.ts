/**
 * The side of a hello over HTTP/2 that accepts.
 *
 * @module
 */
import type { ServerHttp2Session } from "node:http2";
import type { Frame } from "../protocol/frame.ts";
import { FrameSealer } from "../protocol/frame_sealer.ts";
import { AcceptorHandshake, type HelloRefusal, LINK_ID_BYTES } from "../protocol/handshake.ts";
import type { MemberCard } from "../protocol/member.ts";
import type { Lane } from "../protocol/messages.ts";
import { NONCE_BYTES, type SessionKeys } from "../protocol/session_keys.ts";
import type { HelloContext } from "./hello_context.ts";
import { type Http2Stream, LaneStream } from "./lane_stream.ts";
import { PeerError } from "./link.ts";
import { SessionSet } from "./session_set.ts";

/** What the network makes of a proven dialler. */
export type Verdict = { readonly kind: "accept" } | {
  readonly kind: "refuse";
  readonly code: HelloRefusal;
  readonly why: string;
};

/** What an accepted connection tells its network. */
export interface AcceptHandler {
  /** The dialler has proved who it is: accept it or not. */
  proven(accepted: Http2Acceptor, card: MemberCard): Verdict;
  /** The dialler's other streams may come now, under this name. */
  named(accepted: Http2Acceptor, name: string): void;
  /** All streams are attached: says whether the link may still open. */
  admits(accepted: Http2Acceptor, card: MemberCard): boolean;
  /** The dialler was told that the link is open. */
  attached(accepted: Http2Acceptor, card: MemberCard, lanes: Readonly<Record<Lane, LaneStream>>): void;
  /** It came to nothing. */
  failed(accepted: Http2Acceptor, error: PeerError): void;
}

/** Accepts one dialler. */
export class Http2Acceptor {
  readonly #context: HelloContext;
  readonly #handler: AcceptHandler;
  readonly #handshake: AcceptorHandshake;
  readonly #sessions: SessionSet;
  readonly #control: LaneStream;
  readonly #cancelTimer: () => void;
  #proven: { readonly card: MemberCard; readonly keys: SessionKeys } | undefined;
  #attention: LaneStream | undefined;
  #kv: LaneStream | undefined;
  #done = false;

  /** Begins with the control stream of a connection. */
  constructor(session: ServerHttp2Session, stream: Http2Stream, context: HelloContext, handler: AcceptHandler) {
    this.#context = context;
    this.#handler = handler;
    this.#sessions = new SessionSet();
    this.#sessions.add(session);
    this.#handshake = new AcceptorHandshake({
      card: context.card(),
      key: context.key,
      nonce: context.randomBytes(NONCE_BYTES),
    });
    const { helloMs } = context.limits;
    this.#cancelTimer = context.setTimer(
      () => this.#fail(new PeerError(`The hello was not finished in ${helloMs} ms`, { code: "protocol" })),
      helloMs,
    );
    this.#control = new LaneStream(stream, {
      expect: { lane: "hello", maxPayloadBytes: context.limits.frame.hello },
      sealer: new FrameSealer("hello"),
      handler: {
        frame: (frame) => this.#guard(() => this.#hello(frame)),
        over: (error) => this.#fail(error),
      },
    });
  }

  /** Attaches a stream that named this link. False when there is nothing to attach it to. */
  attach(lane: "attention" | "kv", session: ServerHttp2Session, stream: Http2Stream): boolean {
    const proven = this.#proven;
    if (proven === undefined || this.#done) return false;
    if (!this.#sessions.has(session)) this.#sessions.add(session);
    if (lane === "kv") session.setLocalWindowSize(this.#context.kvWindowBytes);
    const attached: LaneStream = new LaneStream(stream, {
      expect: { lane, key: proven.keys(lane, "dialler"), maxPayloadBytes: this.#context.limits.frame[lane] },
      sealer: new FrameSealer(lane, proven.keys(lane, "acceptor")),
      handler: {
        frame: (frame) => this.#guard(() => this.#attached(frame, lane, attached)),
        over: (error) => this.#fail(error),
      },
    });
    return true;
  }

  /** Says that there are too many hellos under way. */
  turnAway(): void {
    this.#refuse("busy", "");
  }

  /** Gives up; nothing more is told. */
  abandon(): void {
    this.#done = true;
    this.#cancelTimer();
    this.destroy();
  }

  /** Breaks the connections. */
  destroy(): void {
    this.#sessions.destroy();
  }

  #hello(frame: Frame): void {
    const step = this.#handshake.receive(frame);
    if (step.kind === "send") {
      this.#control.sendSealed(step.frame);
      return;
    }
    const verdict = this.#handler.proven(this, step.card);
    if (verdict.kind === "refuse") {
      this.#refuse(verdict.code, verdict.why);
      this.#handler.failed(this, new PeerError(verdict.why, { code: "refused" }));
      return;
    }
    const { limits, randomBytes } = this.#context;
    const link = randomBytes(LINK_ID_BYTES);
    const { frame: ready, keys } = this.#handshake.accept(link);
    this.#proven = { card: step.card, keys };
    this.#handler.named(this, link.toHex());
    this.#control.sendSealed(ready);
    this.#control.become({
      expect: { lane: "control", key: keys("control", "dialler"), maxPayloadBytes: limits.frame.control },
      sealer: new FrameSealer("control", keys("control", "acceptor")),
      handler: {
        frame: (frame) => {
          this.#fail(new PeerError(`Cannot link: wanted nothing yet, got ${frame.type}`, { code: "protocol" }));
        },
        over: (error) => this.#fail(error),
      },
    });
  }

  #attached(frame: Frame, lane: "attention" | "kv", stream: LaneStream): void {
    const taken = lane === "attention" ? this.#attention : this.#kv;
    if (frame.type !== "attach" || taken !== undefined) {
      throw new PeerError(`Cannot link: wanted one attach on lane ${lane}, got ${frame.type}`, { code: "protocol" });
    }
    if (lane === "attention") this.#attention = stream;
    else this.#kv = stream;
    const { card } = this.#proven ?? {};
    if (card === undefined || this.#attention === undefined || this.#kv === undefined) return;
    if (!this.#handler.admits(this, card)) {
      throw new PeerError(`Cannot link with ${card.name}: there is another link by now`, { code: "refused" });
    }
    this.#done = true;
    this.#cancelTimer();
    this.#control.sendEmpty("open", this.#context.epoch());
    const lanes = { control: this.#control, attention: this.#attention, kv: this.#kv };
    this.#handler.attached(this, card, lanes);
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

  /** Sends a refusal and breaks the connections when it has left. */
  #refuse(code: HelloRefusal, why: string): void {
    this.#end(this.#handshake.refuse(code, { why }));
  }

  #end(frame: Uint8Array): void {
    this.#done = true;
    this.#cancelTimer();
    const cancel = this.#context.setTimer(() => this.destroy(), this.#context.limits.lingerMs);
    this.#control.sendSealed(frame);
    this.#control.drain(() => {
      cancel();
      this.destroy();
    });
  }

  #fail(error: PeerError): void {
    if (this.#done) return;
    const answer = this.#handshake.answer(error);
    if (answer === undefined) this.abandon();
    else this.#end(answer);
    this.#handler.failed(this, error);
  }
}
