/**
 * One end of a simulated link.
 *
 * @module
 */
import { type AttentionLink, PeerError, type PeerLink } from "../../scheduler/links/link.ts";
import { FRAME_HEADER_BYTES, type FrameTypeName } from "../../scheduler/protocol/frame.ts";
import { FrameWriter } from "../../scheduler/protocol/frame_writer.ts";
import { cutPieces } from "../../scheduler/protocol/kv_codec.ts";
import type { KvFormat, MemberCard, MemberIdentity } from "../../scheduler/protocol/member.ts";
import { encodeMessage, type LaneMessage, receiveMessage } from "../../scheduler/protocol/message_codec.ts";
import type { AttendReply, ControlMessage, KvMessage, Lane, Message } from "../../scheduler/protocol/messages.ts";
import type { SimEndpoint } from "./sim_network.ts";

/** A message on its way, as bytes. */
export interface Parcel {
  /** Who sent it. */
  readonly from: MemberIdentity;
  /** For whom it was sent. */
  readonly to: MemberIdentity;
  /** Lane. */
  readonly lane: Lane;
  /** What it is, for traces. */
  readonly label: string;
  /** Type of its frame. */
  readonly type: FrameTypeName;
  /** Bytes. */
  readonly payload: Uint8Array;
  /** Epoch of its sender. */
  readonly epoch: number;
}

/** One end of a link; the other end is `other`. */
export class SimLink implements PeerLink {
  /** See {@linkcode PeerLink.peer}. */
  readonly peer: MemberCard;
  /** See {@linkcode PeerLink.attention}. */
  readonly attention: AttentionLink;
  /** Whose end it is. */
  readonly endpoint: SimEndpoint;
  /** Whether this end is open. */
  state: "opening" | "open" | "closed" = "opening";
  /** Bytes of the kv lane on their way. */
  kvBacklog = 0;
  /** When the last message of each lane arrives, ms: none overtakes it. */
  readonly dueMs: Record<Lane, number> = { attention: 0, control: 0, kv: 0 };
  readonly #writer = new FrameWriter();
  #other: SimLink | undefined;
  #format: KvFormat | undefined;

  /** Makes an end that leads nowhere yet. */
  constructor(endpoint: SimEndpoint, peer: MemberCard) {
    this.endpoint = endpoint;
    this.peer = peer;
    this.attention = { send: (message) => this.#send({ lane: "attention", message }) };
  }

  /** The other end. @throws {Error} before {@linkcode connect}. */
  get other(): SimLink {
    if (this.#other === undefined) throw new Error("Cannot use a link: it leads nowhere");
    return this.#other;
  }

  /** Leads to the other end. */
  connect(other: SimLink): void {
    this.#other = other;
  }

  /** See {@linkcode PeerLink.control}. */
  control(message: ControlMessage): void {
    this.#send({ lane: "control", message });
  }

  /** See {@linkcode PeerLink.kv}. */
  kv(message: KvMessage): void {
    for (const piece of cutPieces(message)) this.#send({ lane: "kv", message: piece });
  }

  /** See {@linkcode PeerLink}. */
  [Symbol.dispose](): void {
    this.endpoint.network.close(this, "let go");
  }

  /** Takes a parcel in: tells its message, or answers what cannot be what it says. */
  deliver(parcel: Parcel): void {
    const own = this.endpoint.card;
    this.#format ??= this.peer.format ?? own.format;
    const { lane, epoch, from, to } = parcel;
    try {
      const receipt = receiveMessage(lane, parcel, this.#format);
      if (receipt.kind === "answer") {
        const { refused } = receipt;
        this.#send(lane === "kv" ? { lane, message: refused } : { lane: "attention", message: refused });
        return;
      }
      this.endpoint.listener?.received(this, { from, to, epoch, message: receipt.message });
      // Views in a message are valid during the call only: whoever kept one sees it.
      parcel.payload.fill(0xa5);
    } catch (error) {
      if (!(error instanceof PeerError) || error.code !== "protocol") throw error;
      this.endpoint.network.close(this, error.message);
    }
  }

  #send(of: LaneMessage): void {
    const { endpoint, peer } = this;
    if (this.state === "closed") {
      throw new PeerError(`Cannot send ${of.message.kind} to ${peer.name}: the link is closed`, { code: "closed" });
    }
    const type = encodeMessage(this.#writer, endpoint.network.tamper(of));
    endpoint.network.transmit(this, {
      from: { name: endpoint.card.name, incarnation: endpoint.card.incarnation },
      to: { name: peer.name, incarnation: peer.incarnation },
      lane: of.lane,
      label: labelOf(of.message),
      type,
      payload: this.#writer.buffer.slice(FRAME_HEADER_BYTES, this.#writer.length),
      epoch: endpoint.epoch(),
    });
  }
}

/** A message in a few words. */
function labelOf(message: Message): string {
  const call = "call" in message ? ` ${message.call}` : "version" in message ? ` ${message.version}` : "";
  const code = message.kind === "refused" ? ` ${message.code}` : "";
  return `${message.kind}${call}${code}`;
}

/** A reply with something wrong: a value that is not a number, or an item fewer. */
export function spoilReply(reply: AttendReply, how: "not-finite" | "short"): AttendReply {
  if (how === "short") return { ...reply, items: reply.items.slice(1) };
  return {
    ...reply,
    items: reply.items.map((nodes, item) =>
      nodes.map((node, at) => item + at > 0 ? node : { ...node, o: node.o.map((value, i) => i === 0 ? NaN : value) })
    ),
  };
}
