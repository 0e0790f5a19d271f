/**
 * The links of a member: one for each incarnation that is reached, dialled again when they close.
 *
 * A peer is lost when its link has closed and one attempt to reach the same incarnation again has failed or taken too
 * long, or when whoever waits for it gives up. What was asked of it then gets no answer.
 *
 * @module
 */
import { PeerError, type PeerLink } from "../../scheduler/links/link.ts";
import type { ControlMessage, KvMessage, Message } from "../../scheduler/protocol/messages.ts";
import type { MemberCard } from "../../scheduler/protocol/member.ts";
import type { MemberPorts, Timer } from "./ports.ts";

/** Why there is no answer. */
export type NoAnswer = { readonly kind: "no-answer"; readonly reason: string };

/** A message that answers a call. */
export type Answer = Extract<Message, { readonly call: number }>;

/** Told about peers. */
export interface PeersListener {
  /** A peer is reached, for the first time or again. */
  reached(peer: MemberCard): void;
  /** A peer is lost: all that was asked of it has been answered with {@linkcode NoAnswer}. */
  lost(peer: MemberCard, reason: string): void;
}

/** Makes {@linkcode Peers}. */
export interface PeersOptions {
  /** Outside. */
  readonly ports: MemberPorts;
  /** Listener. */
  readonly listener: PeersListener;
  /** Time in which a closed link must be open again, ms. */
  readonly reconnectMs: number;
  /** Between attempts to reach an address that does not answer, ms. */
  readonly redialMs: number;
  /** A peer that was silent for so long is asked whether it lives; after twice that it is lost, ms. */
  readonly suspectMs: number;
}

interface Peer {
  readonly card: MemberCard;
  /** When something last came from it. */
  heardMs: number;
  /** Whether it was asked since then. */
  asked: boolean;
  link?: PeerLink;
  /** Runs while the link is closed and may come back. */
  reconnect?: Timer;
}

interface PendingCall {
  readonly incarnation: string;
  readonly timer: Timer;
  readonly done: (answer: Answer | NoAnswer) => void;
}

/** Links and calls. */
export class Peers {
  readonly #options: PeersOptions;
  readonly #peers = new Map<string, Peer>();
  readonly #calls = new Map<number, PendingCall>();
  readonly #redials = new Map<string, Timer>();
  /** Addresses to keep a link to. */
  readonly #wanted = new Set<string>();
  #lastCall = 0;
  #stopped = false;

  /** Starts without links. */
  constructor(options: PeersOptions) {
    this.#options = options;
  }

  /** Peers whose link is open. */
  get cards(): readonly MemberCard[] {
    return [...this.#peers.values()].filter(({ link }) => link !== undefined).map(({ card }) => card);
  }

  /** The open link to an incarnation. */
  link(incarnation: string): PeerLink | undefined {
    return this.#peers.get(incarnation)?.link;
  }

  /** The open link to the peer of that name. */
  named(name: string): PeerLink | undefined {
    for (const { card, link } of this.#peers.values()) if (card.name === name && link !== undefined) return link;
    return undefined;
  }

  /** A new call number. */
  nextCall(): number {
    return ++this.#lastCall;
  }

  /** Keeps a link to whoever listens at `url`. */
  want(url: string): void {
    if (this.#stopped || this.#wanted.has(url)) return;
    this.#wanted.add(url);
    if (!this.#reaches(url)) this.#options.ports.network.dial(url);
  }

  /** Stops dialling `url`. */
  unwant(url: string): void {
    this.#wanted.delete(url);
    this.#redials.get(url)?.cancel();
    this.#redials.delete(url);
  }

  /** Sends a control message. @returns false when the peer is not reached. */
  tell(incarnation: string, message: ControlMessage): boolean {
    return this.#send(incarnation, (link) => link.control(message));
  }

  /** Sends a kv message. @returns false when the peer is not reached. */
  tellKv(incarnation: string, message: KvMessage): boolean {
    return this.#send(incarnation, (link) => link.kv(message));
  }

  /**
   * Sends a control message that is answered. `done` is called exactly once, never from inside this call: with the answer,
   * or with no answer when the peer is lost or `timeoutMs` have passed.
   */
  ask(
    incarnation: string,
    message: Extract<ControlMessage, { readonly call: number }>,
    options: { readonly timeoutMs: number; readonly done: (answer: Answer | NoAnswer) => void },
  ): void {
    this.expect(incarnation, message.call, options);
    if (!this.tell(incarnation, message)) {
      this.#options.ports.defer(() => this.#finish(message.call, { kind: "no-answer", reason: "it is not reached" }));
    }
  }

  /** As {@linkcode ask} for a call that was sent otherwise. */
  expect(
    incarnation: string,
    call: number,
    options: { readonly timeoutMs: number; readonly done: (answer: Answer | NoAnswer) => void },
  ): void {
    const { timeoutMs, done } = options;
    const timer = this.#options.ports.timer(timeoutMs, () => {
      this.#finish(call, { kind: "no-answer", reason: `no answer in ${timeoutMs} ms` });
    });
    this.#calls.set(call, { incarnation, timer, done });
  }

  /** Something came from a peer. */
  heard(incarnation: string): void {
    const peer = this.#peers.get(incarnation);
    if (peer === undefined) return;
    peer.heardMs = this.#options.ports.now();
    peer.asked = false;
  }

  /** Asks peers that are silent, gives up those that stay so. Call it a few times in `suspectMs`. */
  checkSilence(): void {
    const { ports, suspectMs } = this.#options;
    for (const { card, link, heardMs, asked } of [...this.#peers.values()]) {
      const silentMs = ports.now() - heardMs;
      if (link === undefined || silentMs < suspectMs) continue;
      if (silentMs >= 2 * suspectMs) this.lose(card.incarnation, `nothing came from it for ${Math.round(silentMs)} ms`);
      else if (!asked) this.#askForLife(card.incarnation);
    }
  }

  /** Hands an answer to whoever waits for it. @returns whether somebody did. */
  answer(from: MemberCard, answer: Answer): boolean {
    if (this.#calls.get(answer.call)?.incarnation !== from.incarnation) return false;
    this.#finish(answer.call, answer);
    return true;
  }

  /** Network event. */
  opened(link: PeerLink): void {
    if (this.#stopped) return link[Symbol.dispose]();
    const { incarnation } = link.peer;
    const known = this.#peers.get(incarnation);
    known?.reconnect?.cancel();
    this.#peers.set(incarnation, { card: link.peer, link, heardMs: this.#options.ports.now(), asked: false });
    this.#redials.get(link.peer.clusterUrl)?.cancel();
    this.#redials.delete(link.peer.clusterUrl);
    // Whoever answers under this name now is the only one of that name.
    for (const peer of [...this.#peers.values()]) {
      if (peer.card.name === link.peer.name && peer.card.incarnation !== incarnation) {
        this.lose(peer.card.incarnation, "it was started anew");
      }
    }
    this.#options.listener.reached(link.peer);
  }

  /** Network event. */
  closed(link: PeerLink, reason: string): void {
    const { peer: card } = link;
    const peer = this.#peers.get(card.incarnation);
    if (peer?.link !== link) return;
    peer.link = undefined;
    if (this.#stopped) return;
    peer.reconnect = this.#options.ports.timer(
      this.#options.reconnectMs,
      () => this.lose(card.incarnation, `${reason}; it did not come back in ${this.#options.reconnectMs} ms`),
    );
    this.#options.ports.network.dial(card.clusterUrl);
  }

  /** Network event. */
  failed(url: string, error: Error): void {
    if (this.#stopped) return;
    for (const { card, link } of [...this.#peers.values()]) {
      if (card.clusterUrl === url && link === undefined) this.lose(card.incarnation, error.message);
    }
    if (!this.#wanted.has(url)) return;
    this.#redials.get(url)?.cancel();
    this.#redials.set(
      url,
      this.#options.ports.timer(this.#options.redialMs, () => {
        this.#redials.delete(url);
        if (this.#wanted.has(url) && !this.#reaches(url)) this.#options.ports.network.dial(url);
      }),
    );
  }

  /** Gives a peer up: closes its link and tells everybody who waits for it. */
  lose(incarnation: string, reason: string): void {
    const peer = this.#peers.get(incarnation);
    if (peer === undefined) return;
    this.#peers.delete(incarnation);
    peer.reconnect?.cancel();
    peer.link?.[Symbol.dispose]();
    for (const [call, pending] of [...this.#calls]) {
      if (pending.incarnation === incarnation) this.#finish(call, { kind: "no-answer", reason });
    }
    this.#options.listener.lost(peer.card, reason);
    const { clusterUrl } = peer.card;
    if (!this.#wanted.has(clusterUrl) || this.#redials.has(clusterUrl) || this.#reaches(clusterUrl)) return;
    this.failed(clusterUrl, new PeerError(reason, { code: "closed" }));
  }

  /** Closes everything; nothing is told any more. */
  stop(): void {
    this.#stopped = true;
    for (const timer of this.#redials.values()) timer.cancel();
    for (const { timer } of this.#calls.values()) timer.cancel();
    for (const { link, reconnect } of this.#peers.values()) {
      reconnect?.cancel();
      link?.[Symbol.dispose]();
    }
    this.#redials.clear();
    this.#calls.clear();
    this.#peers.clear();
  }

  #askForLife(incarnation: string): void {
    const peer = this.#peers.get(incarnation);
    if (peer !== undefined) peer.asked = true;
    this.tell(incarnation, { kind: "ping", call: this.nextCall() });
  }

  #reaches(url: string): boolean {
    for (const { card, link } of this.#peers.values()) if (card.clusterUrl === url && link !== undefined) return true;
    return false;
  }

  #send(incarnation: string, send: (link: PeerLink) => void): boolean {
    const link = this.link(incarnation);
    if (link === undefined) return false;
    try {
      send(link);
      return true;
    } catch (error) {
      // `closed` follows.
      if (error instanceof PeerError) return false;
      throw error;
    }
  }

  #finish(call: number, answer: Answer | NoAnswer): void {
    const pending = this.#calls.get(call);
    if (pending === undefined) return;
    this.#calls.delete(call);
    pending.timer.cancel();
    pending.done(answer);
  }
}
