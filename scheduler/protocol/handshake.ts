/**
 * The hello: how two members prove to each other that they know the cluster's key, and who they are, before a byte of
 * anything else is parsed. Nothing of variable form is read before its proof fits.
 *
 * ```text
 * dialler  -> hello      mode u32, nonce (32 bytes)
 * acceptor -> challenge  mode u32, nonce (32 bytes)
 * dialler  -> proof      proof (32 bytes), card (JSON)
 * acceptor -> ready      proof (32 bytes), link (16 bytes), card (JSON)
 *          or refuse     code u32, wanted u32, got u32, proof (32 bytes), why (UTF-8)
 * ```
 *
 * `mode` is 1 with a cluster key, otherwise 0. Proofs are HMAC-SHA256 by the cluster's key over who proves, both nonces
 * and everything after the proof; the acceptor's also covers the dialler's card. Nonces are fresh, so a recorded hello
 * is worth nothing; the side is in the proof, so neither is a reflected one.
 *
 * @module
 */
import { PeerError } from "../links/link.ts";
import { cardSchema } from "./card_schema.ts";
import type { Frame, FrameTypeName } from "./frame.ts";
import { VersionError } from "./frame_reader.ts";
import { FrameSealer } from "./frame_sealer.ts";
import { FrameWriter } from "./frame_writer.ts";
import { parseJson } from "./json_payload.ts";
import type { MemberCard } from "./member.ts";
import { PROTOCOL_VERSION } from "./messages.ts";
import { PayloadReader } from "./payload_reader.ts";
import {
  deriveKeys,
  type LinkSide,
  NONCE_BYTES,
  PROOF_BYTES,
  prove,
  sameProof,
  type SessionKeys,
} from "./session_keys.ts";

/** Bytes of the name of a link. */
export const LINK_ID_BYTES = 16;

/** Why a hello was refused, as a number on the wire. */
const REFUSALS = ["busy", "version", "mode", "auth", "refused", "duplicate"] as const;

/** Why a hello was refused. `refused` and `duplicate` come with a proof and a reason, the others say nothing of anybody. */
export type HelloRefusal = (typeof REFUSALS)[number];

/** Refusals that the acceptor proves: they were decided after the dialler's proof. */
const PROVEN: readonly HelloRefusal[] = ["refused", "duplicate"];

/** The acceptor already has a link with this member. */
export class DuplicateLinkError extends PeerError {
  /** The acceptor's incarnation. */
  readonly incarnation: string;
  /** Makes one. */
  constructor(incarnation: string) {
    super("Cannot link: the peer already has a link with this member, which it has not seen closed", {
      code: "refused",
    });
    this.incarnation = incarnation;
  }
}

/** What both sides of a hello need. */
export interface HandshakeOptions {
  /** Own card. */
  readonly card: MemberCard;
  /** The cluster's key; both sides have one, or neither. */
  readonly key: Uint8Array | undefined;
  /** 32 fresh random bytes. */
  readonly nonce: Uint8Array;
}

/** A peer that has proved who it is, and the keys of the link with it. */
export interface ProvenPeer {
  /** Its card, as it was proved; it has not been compared with one's own yet. */
  readonly card: MemberCard;
  /** Keys of the link. */
  readonly keys: SessionKeys;
}

function modeOf(key: Uint8Array | undefined): number {
  return key === undefined ? 0 : 1;
}

/** A hello that failed and how the acceptor says so. */
class HelloError extends PeerError {
  readonly refusal: HelloRefusal;
  readonly got: number;

  constructor(message: string, options: { readonly refusal: HelloRefusal; readonly got?: number }) {
    super(message, { code: "auth" });
    this.refusal = options.refusal;
    this.got = options.got ?? 0;
  }
}

function modeError(own: number, other: number): HelloError {
  const name = (mode: number) => mode === 0 ? "no cluster key" : "a cluster key";
  return new HelloError(`Cannot link: wanted a peer with ${name(own)}, got one with ${name(other)}`, {
    refusal: "mode",
    got: other,
  });
}

/** What the two sides have in common. */
class Hello {
  readonly options: HandshakeOptions;
  readonly card: Uint8Array;
  readonly #sealer = new FrameSealer("hello");
  readonly #writer = new FrameWriter(1024);

  constructor(options: HandshakeOptions) {
    this.options = options;
    this.card = new TextEncoder().encode(JSON.stringify(options.card));
    if (options.nonce.length !== NONCE_BYTES) {
      throw new RangeError(`Cannot begin hello: wanted a nonce of ${NONCE_BYTES} bytes, got ${options.nonce.length}`);
    }
  }

  frame(type: FrameTypeName, words: readonly number[], parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
    this.#writer.begin(0);
    for (const word of words) this.#writer.u32(word);
    for (const part of parts) this.#writer.bytes(part);
    return this.#sealer.seal(this.#writer, type, 0).slice();
  }

  prove(side: LinkSide | "refuse", parts: readonly Uint8Array[]): Uint8Array {
    return prove(this.options.key, side, parts);
  }

  /** @throws {PeerError} when a frame of another type comes. */
  expect(frame: Frame, type: FrameTypeName): PayloadReader {
    if (frame.type !== type) {
      throw new PeerError(`Cannot link: wanted ${type}, got ${frame.type}`, { code: "protocol" });
    }
    return new PayloadReader(frame.payload, type);
  }
}

/** The reason that a refusal proves: its code, and why. */
function reasonBytes(code: HelloRefusal, why: Uint8Array): Uint8Array {
  return new Uint8Array([REFUSALS.indexOf(code), ...why]);
}

/** The hello of the side that dialled. */
export class DiallerHandshake {
  readonly #hello: Hello;
  #peerNonce: Uint8Array | undefined;

  /** Begins. */
  constructor(options: HandshakeOptions) {
    this.#hello = new Hello(options);
  }

  /** The first frame. */
  start(): Uint8Array<ArrayBuffer> {
    const { key, nonce } = this.#hello.options;
    return this.#hello.frame("hello", [modeOf(key)], [nonce]);
  }

  /**
   * Takes the next frame of the acceptor and says what to do: send a frame, or go on with a proven peer.
   *
   * @throws {DuplicateLinkError} when the acceptor has a link with this member.
   * @throws {PeerError} when the acceptor refuses, or does not prove that it knows the key.
   */
  receive(
    frame: Frame,
  ):
    | { readonly kind: "send"; readonly frame: Uint8Array<ArrayBuffer> }
    | { readonly kind: "ready"; readonly link: Uint8Array; readonly peer: ProvenPeer } {
    if (frame.type === "refuse") throw this.#refusal(frame);
    return this.#peerNonce === undefined ? this.#prove(frame) : this.#finish(frame, this.#peerNonce);
  }

  #prove(frame: Frame): { readonly kind: "send"; readonly frame: Uint8Array<ArrayBuffer> } {
    const { key, nonce } = this.#hello.options;
    const reader = this.#hello.expect(frame, "challenge");
    const mode = reader.u32();
    const peerNonce = reader.bytes(NONCE_BYTES).slice();
    reader.end();
    if (mode !== modeOf(key)) throw modeError(modeOf(key), mode);
    this.#peerNonce = peerNonce;
    const proof = this.#hello.prove("dialler", [nonce, peerNonce, this.#hello.card]);
    return { kind: "send", frame: this.#hello.frame("proof", [], [proof, this.#hello.card]) };
  }

  #finish(
    frame: Frame,
    peerNonce: Uint8Array,
  ): { readonly kind: "ready"; readonly link: Uint8Array; readonly peer: ProvenPeer } {
    const { key, nonce } = this.#hello.options;
    const reader = this.#hello.expect(frame, "ready");
    const proof = reader.bytes(PROOF_BYTES);
    const link = reader.bytes(LINK_ID_BYTES).slice();
    const card = reader.bytes(reader.left).slice();
    const transcript = [nonce, peerNonce, this.#hello.card, link, card];
    if (!sameProof(proof, this.#hello.prove("acceptor", transcript))) {
      throw new PeerError("Cannot link: the peer does not prove that it has the cluster's key", { code: "auth" });
    }
    const peer = { card: parseJson(card, cardSchema, "card"), keys: deriveKeys(key, transcript) };
    return { kind: "ready", link, peer };
  }

  #refusal(frame: Frame): PeerError {
    const { key, nonce } = this.#hello.options;
    const reader = this.#hello.expect(frame, "refuse");
    const code = REFUSALS[reader.u32()];
    const wanted = reader.u32();
    const got = reader.u32();
    const proof = reader.bytes(PROOF_BYTES);
    const why = reader.bytes(reader.left);
    switch (code) {
      case "busy":
        return new PeerError("Cannot link: the peer has too many hellos under way", { code: "unreachable" });
      case "version":
        return new PeerError(`Cannot link: the peer wanted version ${wanted} of the protocol, got ${got}`, {
          code: "refused",
        });
      case "mode":
        return modeError(modeOf(key), wanted);
      case "auth":
        return new PeerError("Cannot link: the peer refused the proof, its cluster key is another", { code: "auth" });
      case "refused":
      case "duplicate": {
        const nonces = [nonce, this.#peerNonce ?? new Uint8Array(0)];
        if (!sameProof(proof, this.#hello.prove("refuse", [...nonces, reasonBytes(code, why)]))) {
          return new PeerError("Cannot link: the peer refused and does not prove who it is", { code: "auth" });
        }
        const text = new TextDecoder().decode(why);
        return code === "duplicate" ? new DuplicateLinkError(text) : new PeerError(text, { code: "refused" });
      }
      case undefined:
        return new PeerError("Cannot link: the peer refused for an unknown reason", { code: "protocol" });
    }
  }
}

/** The hello of the side that accepted. */
export class AcceptorHandshake {
  readonly #hello: Hello;
  #peerNonce: Uint8Array | undefined;
  #peerCard: Uint8Array | undefined;

  /** Begins. */
  constructor(options: HandshakeOptions) {
    this.#hello = new Hello(options);
  }

  /**
   * Takes the next frame of the dialler and says what to do: send a frame, or decide about a proven dialler and then
   * {@linkcode accept} or {@linkcode refuse} it.
   *
   * @throws {PeerError} when the dialler does not prove that it knows the key; {@linkcode answer} makes the frame that
   * says so.
   */
  receive(
    frame: Frame,
  ):
    | { readonly kind: "send"; readonly frame: Uint8Array<ArrayBuffer> }
    | { readonly kind: "proven"; readonly card: MemberCard } {
    if (this.#peerCard !== undefined) {
      throw new PeerError(`Cannot link: wanted no more of the hello, got ${frame.type}`, { code: "protocol" });
    }
    return this.#peerNonce === undefined ? this.#challenge(frame) : this.#verify(frame, this.#peerNonce);
  }

  /** Accepts the proven dialler; `link` is 16 fresh random bytes, the name by which its other streams are known. */
  accept(link: Uint8Array): { readonly frame: Uint8Array<ArrayBuffer>; readonly keys: SessionKeys } {
    const { key, nonce } = this.#hello.options;
    if (this.#peerNonce === undefined || this.#peerCard === undefined) {
      throw new ReferenceError("Cannot accept dialler: it has not proved itself yet");
    }
    const transcript = [this.#peerNonce, nonce, this.#peerCard, link, this.#hello.card];
    const proof = this.#hello.prove("acceptor", transcript);
    return {
      frame: this.#hello.frame("ready", [], [proof, link, this.#hello.card]),
      keys: deriveKeys(key, transcript),
    };
  }

  /** The frame that says why a hello failed, where there is one. */
  answer(error: unknown): Uint8Array<ArrayBuffer> | undefined {
    if (error instanceof VersionError) return this.refuse("version", { got: error.version });
    if (error instanceof HelloError) return this.refuse(error.refusal, { got: error.got });
  }

  /**
   * The frame that refuses the dialler. `why` is sent only for refusals of a dialler that has proved itself; for
   * `duplicate` it is the own incarnation, so that the dialler knows which link is meant.
   *
   * @param got What `version` or `mode` came.
   */
  refuse(code: HelloRefusal, { why = "", got = 0 }: { readonly why?: string; readonly got?: number }): Uint8Array<
    ArrayBuffer
  > {
    const { key, nonce } = this.#hello.options;
    const text = new TextEncoder().encode(PROVEN.includes(code) ? why.slice(0, 1024) : "");
    const proof = PROVEN.includes(code)
      ? this.#hello.prove("refuse", [this.#peerNonce ?? new Uint8Array(0), nonce, reasonBytes(code, text)])
      : new Uint8Array(PROOF_BYTES);
    const wanted = code === "mode" ? modeOf(key) : PROTOCOL_VERSION;
    return this.#hello.frame("refuse", [REFUSALS.indexOf(code), wanted, got], [proof, text]);
  }

  #challenge(frame: Frame): { readonly kind: "send"; readonly frame: Uint8Array<ArrayBuffer> } {
    const { key, nonce } = this.#hello.options;
    const reader = this.#hello.expect(frame, "hello");
    const mode = reader.u32();
    const peerNonce = reader.bytes(NONCE_BYTES).slice();
    reader.end();
    if (mode !== modeOf(key)) throw modeError(modeOf(key), mode);
    this.#peerNonce = peerNonce;
    return { kind: "send", frame: this.#hello.frame("challenge", [modeOf(key)], [nonce]) };
  }

  #verify(frame: Frame, peerNonce: Uint8Array): { readonly kind: "proven"; readonly card: MemberCard } {
    const { nonce } = this.#hello.options;
    const reader = this.#hello.expect(frame, "proof");
    const proof = reader.bytes(PROOF_BYTES);
    const card = reader.bytes(reader.left).slice();
    if (!sameProof(proof, this.#hello.prove("dialler", [peerNonce, nonce, card]))) {
      throw new HelloError("Cannot link: the dialler does not prove that it has the cluster's key", {
        refusal: "auth",
      });
    }
    this.#peerCard = card;
    return { kind: "proven", card: parseJson(card, cardSchema, "card") };
  }
}
