/**
 * The HTTP/2 sessions of one hello or link.
 *
 * @module
 */
import type { ClientHttp2Session, ServerHttp2Session } from "node:http2";
import type { SetTimer } from "./link_limits.ts";

/** Either end of a session. */
export type Http2Session = ClientHttp2Session | ServerHttp2Session;

/** Sessions that end together. */
export class SessionSet {
  readonly #setTimer: SetTimer;
  readonly #sessions = new Set<Http2Session>();
  #destroyed = false;

  /** Makes an empty set. */
  constructor(setTimer: SetTimer) {
    this.#setTimer = setTimer;
  }

  /** Adds a session; it leaves when it closes. */
  add(session: Http2Session): void {
    this.#sessions.add(session);
    session.once("close", () => this.#sessions.delete(session));
    if (this.#destroyed) this.destroy();
  }

  /** Whether the session is in. */
  has(session: Http2Session): boolean {
    return this.#sessions.has(session);
  }

  /** Sessions that have not closed. */
  get size(): number {
    return this.#sessions.size;
  }

  /**
   * Destroys all sessions, also those added later. Not at once: a session that is destroyed while it hands out data
   * takes the process down (Deno 2.9).
   */
  destroy(): void {
    this.#destroyed = true;
    this.#setTimer(() => {
      for (const session of this.#sessions) session.destroy();
    }, 0);
  }
}
