/**
 * Incarnations that are in the directory no more, so that what comes late of them changes nothing.
 *
 * @module
 */
import type { MemberIdentity } from "../protocol/member.ts";

/** What is remembered: that an incarnation is gone for good, or the last version heard of one that fell silent. */
export class PastMembers {
  readonly #most: number;
  /** By incarnation, oldest first. */
  readonly #past = new Map<string, number | "gone">();

  /** Remembers at most `most` incarnations; the oldest is forgotten first. */
  constructor(most: number) {
    this.#most = most;
  }

  /** `gone`, the last version heard, or undefined for one that nothing is known of. */
  get(incarnation: string): number | "gone" | undefined {
    return this.#past.get(incarnation);
  }

  /** The member fell silent; it may come back with a later version. */
  silent({ incarnation }: MemberIdentity, version: number): void {
    this.#set(incarnation, version);
  }

  /** The member is gone for good. */
  gone({ incarnation }: MemberIdentity): void {
    this.#set(incarnation, "gone");
  }

  /** The member is in the directory again. */
  back({ incarnation }: MemberIdentity): void {
    this.#past.delete(incarnation);
  }

  #set(incarnation: string, past: number | "gone"): void {
    this.#past.delete(incarnation);
    this.#past.set(incarnation, past);
    const [oldest] = this.#past.keys();
    if (this.#past.size > this.#most) this.#past.delete(oldest);
  }
}
