/**
 * The HTTP/2 sessions of one hello or link.
 *
 * @module
 */
import type { Http2Session } from "./end_in_turn.ts";

/** Sessions that end together. */
export class SessionSet {
  readonly #sessions = new Set<Http2Session>();
  #destroyed = false;

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

  /** Destroys all sessions, in a turn of their own; also those added later. */
  destroy(): void {
    this.#destroyed = true;
    for (const session of this.#sessions) session.destroy();
  }
}
