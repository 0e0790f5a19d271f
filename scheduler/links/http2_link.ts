/**
 * An open link over HTTP/2: three lanes on two connections.
 *
 * @module
 */
import type { FrameTypeName } from "../protocol/frame.ts";
import type { Frame } from "../protocol/frame.ts";
import { cutPieces } from "../protocol/kv_codec.ts";
import type { KvFormat, MemberCard, MemberIdentity } from "../protocol/member.ts";
import { encodeMessage, type LaneMessage, type Receipt, receiveMessage } from "../protocol/message_codec.ts";
import type { ControlMessage, Envelope, KvMessage, Lane } from "../protocol/messages.ts";
import type { LaneStream } from "./lane_stream.ts";
import { type AttentionLink, PeerError, type PeerLink } from "./link.ts";
import type { LinkLimits, SetTimer } from "./link_limits.ts";
import { PacedLane } from "./paced_lane.ts";

/** Signs of life in the time after which silence closes a link. */
const SIGNS = 4;

/** What a link needs of its network. */
export interface Http2LinkOptions {
  /** The peer. */
  readonly peer: MemberCard;
  /** Own card as it is now. */
  readonly card: () => MemberCard;
  /** Highest epoch seen. */
  readonly epoch: () => number;
  /** Bounds. */
  readonly limits: LinkLimits;
  /** Timers. */
  readonly setTimer: SetTimer;
  /** The streams, attached. */
  readonly lanes: Readonly<Record<Lane, LaneStream>>;
  /** Breaks the connections. */
  readonly destroy: () => void;
  /** A message came. */
  readonly received: (link: Http2Link, envelope: Envelope) => void;
  /** The link closed just now; may come from inside a call to the link. */
  readonly ended: (link: Http2Link, error: PeerError) => void;
}

/** A link to one incarnation of a peer over HTTP/2. */
export class Http2Link implements PeerLink {
  readonly peer: MemberCard;
  readonly attention: AttentionLink;
  readonly #options: Http2LinkOptions;
  readonly #from: MemberIdentity;
  readonly #to: MemberIdentity;
  readonly #kv: PacedLane;
  #format: KvFormat | undefined;
  #closed = false;
  #heard = true;
  #missed = 0;
  #cancelTimer: (() => void) | undefined;

  /** Takes the lanes over; nothing is received before {@linkcode start}. */
  constructor(options: Http2LinkOptions) {
    const { peer, lanes, card } = options;
    const { name, incarnation } = card();
    this.#options = options;
    this.peer = peer;
    this.#from = { name: peer.name, incarnation: peer.incarnation };
    this.#to = { name, incarnation };
    this.#kv = new PacedLane(lanes.kv);
    this.attention = { send: (message) => this.#send({ lane: "attention", message }) };
    for (const lane of ["attention", "control", "kv"] satisfies Lane[]) {
      lanes[lane].handOver({
        frame: (frame) => this.#take(lane, frame),
        over: (error) => this.#fail(error),
      });
    }
    this.#watch();
  }

  get kvBacklog(): number {
    return this.#closed ? 0 : this.#kv.backlog;
  }

  control(message: ControlMessage): void {
    this.#send({ lane: "control", message });
  }

  kv(message: KvMessage): void {
    for (const piece of cutPieces(message)) this.#send({ lane: "kv", message: piece });
  }

  [Symbol.dispose](): void {
    this.close(`${this.peer.name} was let go`);
  }

  /** Closes the link; what was sent on the control lane still leaves. */
  close(reason: string): void {
    if (this.#closed) return;
    const { lanes, limits, setTimer, destroy } = this.#options;
    this.#shut();
    const cancel = setTimer(destroy, limits.lingerMs);
    lanes.control.drain(() => {
      cancel();
      destroy();
    });
    this.#options.ended(this, new PeerError(reason, { code: "closed" }));
  }

  #send(of: LaneMessage): void {
    if (this.#closed) {
      throw new PeerError(`Cannot send ${of.message.kind} to ${this.peer.name}: the link is closed`, {
        code: "closed",
      });
    }
    const { lanes, limits, epoch } = this.#options;
    const stream = lanes[of.lane];
    const writer = stream.takeWriter();
    let type: FrameTypeName;
    try {
      type = encodeMessage(writer, of);
    } catch (error) {
      stream.keepWriter(writer);
      throw error;
    }
    const frame = { type, epoch: epoch() };
    if (of.lane === "kv") this.#kv.send(writer, frame);
    else stream.send(writer, frame);
    const backlog = of.lane === "kv" ? this.#kv.backlog : stream.backlog;
    if (backlog > limits.backlog[of.lane]) {
      this.#fail(
        new PeerError(
          `${this.peer.name} is too slow: wanted at most ${
            limits.backlog[of.lane]
          } bytes waiting on lane ${of.lane}, got ${backlog}`,
          { code: "closed" },
        ),
      );
    }
  }

  #take(lane: Lane, frame: Frame): void {
    this.#heard = true;
    if (frame.type === "alive") return;
    this.#format ??= this.peer.format ?? this.#options.card().format;
    const receipt = this.#open(lane, frame);
    if (receipt === undefined) return;
    if (receipt.kind === "answer") {
      this.#send(lane === "kv" ? { lane, message: receipt.refused } : { lane: "attention", message: receipt.refused });
      return;
    }
    this.#options.received(this, {
      from: this.#from,
      to: this.#to,
      epoch: frame.epoch,
      message: receipt.message,
    });
  }

  #open(lane: Lane, frame: Frame): Receipt | undefined {
    try {
      if (frame.type === "open" || frame.type === "attach") {
        throw new PeerError(`Cannot read frame: wanted a message on lane ${lane}, got ${frame.type}`, {
          code: "protocol",
        });
      }
      return receiveMessage(lane, frame, this.#format);
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
      this.#fail(error);
    }
  }

  /** Closes a link that cannot be used any more, at once. */
  #fail(error: PeerError): void {
    if (this.#closed) return;
    this.#shut();
    this.#options.destroy();
    this.#options.ended(this, error);
  }

  #shut(): void {
    this.#closed = true;
    for (const lane of Object.values(this.#options.lanes)) lane.stop();
    this.#kv.clear();
    this.#cancelTimer?.();
  }

  /**
   * Sends signs of life, and counts the periods in which nothing came. Periods rather than time, so that a thread which
   * was busy itself does not take its own silence for the peer's.
   */
  #watch(): void {
    const { limits, setTimer, lanes, epoch } = this.#options;
    this.#cancelTimer = setTimer(() => {
      if (this.#closed) return;
      this.#missed = this.#heard ? 0 : this.#missed + 1;
      this.#heard = false;
      if (this.#missed > SIGNS) {
        this.#fail(new PeerError(`${this.peer.name} was silent for ${limits.silenceMs} ms`, { code: "closed" }));
        return;
      }
      lanes.control.sendEmpty("alive", epoch());
      this.#watch();
    }, limits.silenceMs / SIGNS);
  }
}
