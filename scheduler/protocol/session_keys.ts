/**
 * Keys of a link: what both sides derive from the cluster's key once each has proved that it knows it.
 *
 * @module
 */
import { createHmac, createSecretKey, hkdfSync, type KeyObject } from "node:crypto";
import type { FrameLane } from "./frame.ts";
import type { Lane } from "./messages.ts";

/** Fewest bytes of a cluster's key. */
export const MIN_KEY_BYTES = 32;

/** Bytes of a nonce. */
export const NONCE_BYTES = 32;

/** Bytes of a proof. */
export const PROOF_BYTES = 32;

/** What proofs are made with where there is no key: they prove nothing, and the hello is the same. */
const NO_KEY = new TextEncoder().encode("infinite-llm without a cluster key");

/** Who sends: the side that dialled, or the one that accepted. */
export type LinkSide = "dialler" | "acceptor";

/** Key of each stream and direction; `undefined` where frames carry no tag. */
export type SessionKeys = (lane: Lane, sender: LinkSide) => KeyObject | undefined;

/** @throws {RangeError} when a cluster's key is too short. */
export function checkKey(key: Uint8Array): void {
  if (key.length < MIN_KEY_BYTES) {
    throw new RangeError(`Cannot use cluster key: wanted at least ${MIN_KEY_BYTES} bytes, got ${key.length}`);
  }
}

/**
 * HMAC-SHA256 over a label and parts, each with its length before it, so that no two lists of parts are the same bytes.
 */
export function prove(key: Uint8Array | undefined, label: string, parts: readonly Uint8Array[]): Uint8Array {
  const hmac = createHmac("sha256", key ?? NO_KEY);
  for (const part of [new TextEncoder().encode(label), ...parts]) {
    hmac.update(new Uint8Array(new Uint32Array([part.length]).buffer));
    hmac.update(part);
  }
  return new Uint8Array(hmac.digest());
}

/** Whether two proofs are equal, in time that does not depend on where they differ. */
export function sameProof(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let differs = 0;
  for (let i = 0; i < a.length; i++) differs |= a[i] ^ b[i];
  return differs === 0;
}

/**
 * Derives the keys of a link by HKDF-SHA256 from the cluster's key; bound to what was said in the hello (both nonces and
 * both cards, so names and incarnations), the lane and who sends.
 */
export function deriveKeys(key: Uint8Array | undefined, transcript: readonly Uint8Array[]): SessionKeys {
  if (key === undefined) return () => undefined;
  const salt = prove(key, "session", transcript);
  const keys = new Map<string, KeyObject>();
  for (const lane of ["attention", "control", "kv"] satisfies FrameLane[]) {
    for (const side of ["dialler", "acceptor"] satisfies LinkSide[]) {
      const bytes = hkdfSync("sha256", key, salt, `infinite-llm link 1 ${lane} ${side}`, 32);
      keys.set(`${lane} ${side}`, createSecretKey(new Uint8Array(bytes)));
    }
  }
  return (lane, side) => keys.get(`${lane} ${side}`);
}
