/**
 * Turns of the event loop that see to sockets.
 *
 * A loop that never rests looks at its sockets only every 61st turn (Deno runs on Tokio, whose loop asks the system when it
 * has nothing to do, and else after so many tasks). A thread that computes in slices and passes the turn on with
 * `setImmediate` therefore hears from its peers every 61 slices: 120 ms instead of 2. So the turn is passed on through a
 * connection of the thread to itself: nothing is left to do until the system says that the byte has come, and it says at
 * the same time what has come from others.
 *
 * @module
 */
import { setImmediate } from "node:timers";

const BYTE = new Uint8Array(1);
/** More than a byte: a read that fills its buffer would be followed by one that does not ask the system. */
const READ_BYTES = 64;

/** Runs work after a look at the sockets. Disposing of it closes the connection; what is deferred then still runs. */
export class SocketTurns implements Disposable {
  readonly #out: Deno.Conn;
  readonly #in: Deno.Conn;
  readonly #buffer = new Uint8Array(READ_BYTES);
  #queue: (() => void)[] = [];
  #disposed = false;

  /** Takes both ends of a connection. */
  constructor(ends: { readonly out: Deno.Conn; readonly in: Deno.Conn }) {
    this.#out = ends.out;
    this.#in = ends.in;
  }

  /** Connects the thread to itself over loopback. @throws {Error} when that is not possible. */
  static async open(): Promise<SocketTurns> {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = listener.addr;
    const [out, end] = await Promise.all([Deno.connect({ hostname: "127.0.0.1", port }), listener.accept()]);
    out.setNoDelay(true);
    return new SocketTurns({ out, in: end });
  }

  /** Runs `work` in a later turn, in the order of the calls, after what has come in meanwhile. */
  defer(work: () => void): void {
    if (this.#disposed) return void setImmediate(work);
    this.#queue.push(work);
    if (this.#queue.length === 1) this.#pass();
  }

  /** Closes the connection. Idempotent. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#out.close();
    this.#in.close();
  }

  #pass(): void {
    const run = () => this.#run();
    this.#out.write(BYTE).catch(() => {});
    // A connection that broke passes the turn on all the same.
    this.#in.read(this.#buffer).then(run, () => void setImmediate(run));
  }

  #run(): void {
    const queue = this.#queue;
    // What is deferred meanwhile waits for a turn of its own.
    this.#queue = [];
    try {
      for (let work = queue.shift(); work !== undefined; work = queue.shift()) work();
    } finally {
      // Whoever throws takes nothing away from the others.
      if (queue.length > 0) {
        const waited = this.#queue.length > 0;
        this.#queue.unshift(...queue);
        if (!waited) this.#pass();
      }
    }
  }
}
