/**
 * A guard around HTTP/2 sessions of Deno 2.9.
 *
 * @module
 */
import type { ClientHttp2Session, ServerHttp2Session } from "node:http2";
import type { SetTimer } from "./link_limits.ts";

/** Either end of a session. */
export type Http2Session = ClientHttp2Session | ServerHttp2Session;

/**
 * Has a session end in a turn of its own whoever ends it, also the session itself when a GOAWAY comes. Ended while it
 * hands out what came, it uses memory that it has freed and takes the process down.
 */
export function endInTurn(session: Http2Session, setTimer: SetTimer): void {
  const destroy = session.destroy.bind(session);
  const close = session.close.bind(session);
  const pending = new Map<string, () => void>();
  const later = (what: string, action: () => void) => {
    if (session.destroyed || pending.has(what)) return;
    pending.set(what, setTimer(action, 0));
  };
  session.once("close", () => pending.forEach((cancel) => cancel()));
  Object.defineProperties(session, {
    destroy: { value: (error?: Error, code?: number) => later("destroy", () => destroy(error, code)) },
    close: { value: (callback?: () => void) => later("close", () => close(callback)) },
  });
}
