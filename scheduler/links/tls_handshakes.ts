/**
 * Accepted connections whose TLS handshake is not over. HTTP/2 knows nothing of them yet, so nothing else would end
 * those that stay silent.
 *
 * @module
 */
import type { Socket } from "node:net";
import type { SetTimer } from "./link_limits.ts";

/** Bounds of handshakes. */
export interface TlsHandshakesOptions {
  /** Most time one may take, ms. */
  readonly ms: number;
  /** How many there may be at once. */
  readonly most: number;
  /** Timers. */
  readonly setTimer: SetTimer;
}

/** Connections in their TLS handshake. */
export class TlsHandshakes {
  readonly #options: TlsHandshakesOptions;
  readonly #sockets = new Map<string, Socket>();
  #destroyed = false;

  /** Starts with none. */
  constructor(options: TlsHandshakesOptions) {
    this.#options = options;
  }

  /** Takes a connection that was just accepted. Gives whether it may go on; it is ended otherwise. */
  begin(socket: Socket): boolean {
    const { ms, most, setTimer } = this.#options;
    if (this.#destroyed || this.#sockets.size >= most) {
      socket.destroy();
      return false;
    }
    const name = nameOf(socket);
    this.#sockets.set(name, socket);
    const cancel = setTimer(() => {
      if (this.#sockets.get(name) === socket) socket.destroy();
    }, ms);
    socket.once("close", () => {
      cancel();
      if (this.#sockets.get(name) === socket) this.#sockets.delete(name);
    });
    return true;
  }

  /** Lets go of the connection whose handshake is over, of which `socket` is the inside. */
  end(socket: Socket): void {
    this.#sockets.delete(nameOf(socket));
  }

  /** Ends every connection, and all that come later. */
  destroy(): void {
    this.#destroyed = true;
    for (const socket of this.#sockets.values()) socket.destroy();
  }
}

/** The far end: the socket outside of TLS and the one inside share nothing else, and no two open connections have the same. */
function nameOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}
