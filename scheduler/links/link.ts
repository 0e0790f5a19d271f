/**
 * How members reach each other: a link carries envelopes of three lanes between two incarnations.
 *
 * @module
 */
import type { AttentionMessage, ControlMessage, Envelope, KvMessage } from "../protocol/messages.ts";
import type { MemberCard } from "../protocol/member.ts";

/**
 * Carries attention between a home and one holder. The one part of a link that other transports (memory of another GPU
 * on the host, NCCL) replace.
 */
export interface AttentionLink {
  /**
   * Sends; the message's arrays are the caller's again when this returns. Messages of one link arrive in order, once, or
   * the link closes.
   *
   * @throws {PeerError} when the link is closed.
   */
  send(message: AttentionMessage): void;
}

/** A link to one incarnation of a peer, open from its birth until `closed` is told. */
export interface PeerLink extends Disposable {
  /** The peer, as proven when the link opened. */
  readonly peer: MemberCard;
  /** Attention. */
  readonly attention: AttentionLink;
  /** Bytes of the kv lane that wait to be sent: pace yourself. */
  readonly kvBacklog: number;
  /** Sends on the control lane. @throws {PeerError} when the link is closed. */
  control(message: ControlMessage): void;
  /** Sends on the kv lane; `piece` bytes are the caller's again when this returns. @throws {PeerError} when the link is closed. */
  kv(message: KvMessage): void;
  /** Closes the link; the peer sees it closed. */
  [Symbol.dispose](): void;
}

/** Told about links by a {@linkcode Network}. Calls come one at a time, never from inside a call to the network. */
export interface NetworkListener {
  /** A link is open: dialled or accepted. */
  opened(link: PeerLink): void;
  /** A message came. Views in it are valid during the call only. */
  received(link: PeerLink, envelope: Envelope): void;
  /** A link that was open is closed; nothing comes from it any more. */
  closed(link: PeerLink, reason: string): void;
  /** A dialled address could not be reached, or the peer was refused by name. */
  failed(url: string, error: Error): void;
}

/** Opens links. */
export interface Network extends Disposable {
  /** Where this member's cluster port is reached. */
  readonly url: string;
  /** Dials a peer; `opened` or `failed` is told later. Dialling a url twice while the first is under way does nothing. */
  dial(url: string): void;
  /** Starts telling; once. */
  listen(listener: NetworkListener): void;
}

/** A peer that cannot be used: gone, refused, or it broke the protocol. */
export class PeerError extends Error {
  /** Error name. */
  override readonly name = "PeerError";
  /** Kind of trouble, for counters: `closed`, `refused`, `protocol`, `auth`, `unreachable`. */
  readonly code: "closed" | "refused" | "protocol" | "auth" | "unreachable";
  /** Makes one. */
  constructor(message: string, options: { readonly code: PeerError["code"]; readonly cause?: unknown }) {
    super(message, { cause: options.cause });
    this.code = options.code;
  }
}
