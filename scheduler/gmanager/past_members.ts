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
  readonly #past = new Map<string, { readonly name: string; readonly version: number | "gone" }>();

  /** Remembers at most `most` incarnations; the oldest is forgotten first. */
  constructor(most: number) {
    this.#most = most;
  }

  /** `gone`, the last version heard, or undefined for one that nothing is known of. */
  get(incarnation: string): number | "gone" | undefined {
    return this.#past.get(incarnation)?.version;
  }

  /** The member fell silent; it may come back with a later version. */
  silent({ name, incarnation }: MemberIdentity, version: number): void {
    this.#set(incarnation, { name, version });
  }

  /** The member is gone for good. */
  gone({ name, incarnation }: MemberIdentity): void {
    this.#set(incarnation, { name, version: "gone" });
  }

  /** The member is in the directory again. */
  back({ incarnation }: MemberIdentity): void {
    this.#past.delete(incarnation);
  }

  /** Another run of the member lives: those that fell silent before are gone for good. */
  succeeded(name: string): void {
    for (const [incarnation, past] of this.#past) {
      if (past.name === name) this.#past.set(incarnation, { name, version: "gone" });
    }
  }

  #set(incarnation: string, past: { readonly name: string; readonly version: number | "gone" }): void {
    this.#past.delete(incarnation);
    this.#past.set(incarnation, past);
    const [oldest] = this.#past.keys();
    if (this.#past.size > this.#most) this.#past.delete(oldest);
  }
}
