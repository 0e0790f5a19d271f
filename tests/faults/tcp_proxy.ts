/**
 * A TCP proxy that does to a connection what networks do: delay, jitter, narrow, cut, reset, swallow, corrupt, truncate.
 * Its rules may be changed while connections are open.
 *
 * @module
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import { SeededRandom } from "../synthetic/random.ts";

/** `up` is from whoever connects to the proxy to the target. */
export type Direction = "up" | "down";

/** What happens to the bytes of every connection. */
export interface ProxyRules {
  /** Each chunk is passed on so much later. @default 0 */
  readonly latencyMs: number;
  /** And up to so much later still, at random, never overtaking. @default 0 */
  readonly jitterMs: number;
  /** Bytes a second and direction. @default Infinity */
  readonly bytesPerSecond: number;
  /** Directions whose bytes vanish while the connections stay open. @default [] */
  readonly swallow: readonly Direction[];
  /** What becomes of new connections. @default "pass" */
  readonly accept: "pass" | "reset";
}

/** Harm to the bytes of one direction, counted over the connections that are open when it is asked for, each on its own. */
export interface ByteFault {
  /** Which way. */
  readonly direction: Direction;
  /** How many bytes pass untouched from now on. */
  readonly after: number;
}

/** A running proxy. */
export interface TcpProxy extends AsyncDisposable {
  /** Port on 127.0.0.1 where it listens. */
  readonly port: number;
  /** Connections open now. */
  readonly connections: number;
  /** Bytes passed on so far. */
  readonly passed: Readonly<Record<Direction, number>>;
  /** Changes rules from now on, also for bytes that wait. */
  set(rules: Partial<ProxyRules>): void;
  /** Inverts one byte of each open connection. */
  flip(fault: ByteFault): void;
  /** Closes each open connection after some bytes, in the middle of whatever they are. */
  truncate(fault: ByteFault): void;
  /** Closes every open connection in an orderly way; bytes that wait are lost. */
  cut(): void;
  /** Resets every open connection. */
  reset(): void;
}

/** Bytes that may wait in one direction of a connection before its source is held up. */
const MAX_WAITING_BYTES = 4 * 2 ** 20;

const NO_FAULTS: ProxyRules = {
  latencyMs: 0,
  jitterMs: 0,
  bytesPerSecond: Infinity,
  swallow: [],
  accept: "pass",
};

/** Starts a proxy for the TCP port `target` on 127.0.0.1; `seed` sets the jitter. */
export async function startTcpProxy(
  options: { readonly target: number; readonly rules?: Partial<ProxyRules>; readonly seed?: number },
): Promise<TcpProxy> {
  const proxy = new RunningProxy(
    options.target,
    { ...NO_FAULTS, ...options.rules },
    new SeededRandom(options.seed ?? 1),
  );
  await proxy.start();
  return proxy;
}

class RunningProxy implements TcpProxy {
  readonly passed: Record<Direction, number> = { up: 0, down: 0 };
  readonly #server: Server;
  readonly #random: SeededRandom;
  readonly #target: number;
  readonly #connections = new Set<Connection>();
  #rules: ProxyRules;
  #port = 0;

  constructor(target: number, rules: ProxyRules, random: SeededRandom) {
    this.#target = target;
    this.#rules = rules;
    this.#random = random;
    this.#server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) => this.#accept(socket));
  }

  get port(): number {
    return this.#port;
  }

  get connections(): number {
    return this.#connections.size;
  }

  async start(): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#server.once("error", reject);
    this.#server.listen(0, "127.0.0.1", resolve);
    await promise;
    const address = this.#server.address();
    if (typeof address === "object" && address !== null) this.#port = address.port;
  }

  set(rules: Partial<ProxyRules>): void {
    this.#rules = { ...this.#rules, ...rules };
  }

  flip({ direction, after }: ByteFault): void {
    for (const connection of this.#connections) connection.pipe(direction).flip(after);
  }

  truncate({ direction, after }: ByteFault): void {
    for (const connection of this.#connections) connection.pipe(direction).truncate(after);
  }

  cut(): void {
    for (const connection of [...this.#connections]) connection.close("end");
  }

  reset(): void {
    for (const connection of [...this.#connections]) connection.close("reset");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    this.reset();
    await promise;
  }

  #accept(near: Socket): void {
    if (this.#rules.accept === "reset") {
      near.on("error", () => {});
      near.resetAndDestroy();
      return;
    }
    const connection = new Connection(
      near,
      connect({ port: this.#target, host: "127.0.0.1", noDelay: true, allowHalfOpen: true }),
      {
        rules: () => this.#rules,
        random: this.#random,
        passed: (direction, bytes) => this.passed[direction] += bytes,
        closed: () => this.#connections.delete(connection),
      },
    );
    this.#connections.add(connection);
  }
}

interface ConnectionOptions {
  readonly rules: () => ProxyRules;
  readonly random: SeededRandom;
  readonly passed: (direction: Direction, bytes: number) => void;
  readonly closed: () => void;
}

/** Two sockets and what goes between them. */
class Connection {
  readonly #near: Socket;
  readonly #far: Socket;
  readonly #options: ConnectionOptions;
  readonly #pipes: Readonly<Record<Direction, Pipe>>;
  #closed = false;

  constructor(near: Socket, far: Socket, options: ConnectionOptions) {
    this.#near = near;
    this.#far = far;
    this.#options = options;
    const pipe = (direction: Direction, from: Socket, to: Socket) =>
      new Pipe(from, to, {
        rules: options.rules,
        random: options.random,
        swallowed: () => options.rules().swallow.includes(direction),
        passed: (bytes) => options.passed(direction, bytes),
        truncated: () => this.close("end"),
      });
    this.#pipes = { up: pipe("up", near, far), down: pipe("down", far, near) };
    for (const socket of [near, far]) {
      socket.on("error", () => this.close("reset"));
      socket.on("close", () => near.destroyed && far.destroyed && this.close("end"));
    }
  }

  pipe(direction: Direction): Pipe {
    return this.#pipes[direction];
  }

  close(how: "end" | "reset"): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const pipe of Object.values(this.#pipes)) pipe.stop();
    for (const socket of [this.#near, this.#far]) {
      if (how === "reset") socket.resetAndDestroy();
      else socket.destroy();
    }
    this.#options.closed();
  }
}

interface PipeOptions {
  readonly rules: () => ProxyRules;
  readonly random: SeededRandom;
  readonly swallowed: () => boolean;
  readonly passed: (bytes: number) => void;
  readonly truncated: () => void;
}

/** One direction of a connection. */
class Pipe {
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #options: PipeOptions;
  /** What waits, with the time from which it may go; `undefined` is the end. */
  readonly #waiting: { readonly chunk: Uint8Array | undefined; readonly dueMs: number }[] = [];
  #waitingBytes = 0;
  #dueMs = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #stopped = false;
  #flipAfter: number | undefined;
  #truncateAfter: number | undefined;

  constructor(from: Socket, to: Socket, options: PipeOptions) {
    this.#from = from;
    this.#to = to;
    this.#options = options;
    from.on("data", (chunk: Uint8Array) => this.#take(chunk));
    from.on("end", () => this.#take(undefined));
  }

  flip(after: number): void {
    this.#flipAfter = after;
  }

  truncate(after: number): void {
    this.#truncateAfter = after;
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  #take(chunk: Uint8Array | undefined): void {
    const { latencyMs, jitterMs } = this.#options.rules();
    const dueMs = performance.now() + latencyMs + jitterMs * this.#options.random.uniform();
    this.#waiting.push({ chunk, dueMs });
    this.#waitingBytes += chunk?.length ?? 0;
    if (this.#waitingBytes > MAX_WAITING_BYTES) this.#from.pause();
    this.#pump();
  }

  #pump(): void {
    while (this.#waiting.length > 0 && !this.#stopped) {
      const now = performance.now();
      this.#dueMs = Math.max(this.#dueMs, this.#waiting[0].dueMs);
      if (this.#dueMs > now) {
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => this.#pump(), this.#dueMs - now);
        return;
      }
      const first = this.#waiting.shift();
      if (first === undefined) return;
      this.#waitingBytes -= first.chunk?.length ?? 0;
      if (this.#waitingBytes <= MAX_WAITING_BYTES / 2) this.#from.resume();
      // A narrow connection is busy with these bytes for a while; the next may go after that.
      this.#dueMs = now + (first.chunk?.length ?? 0) / this.#options.rules().bytesPerSecond * 1000;
      this.#pass(first.chunk);
    }
  }

  #pass(chunk: Uint8Array | undefined): void {
    if (this.#options.swallowed()) return;
    if (chunk === undefined) {
      this.#to.end();
      return;
    }
    let bytes = chunk;
    if (this.#flipAfter !== undefined) {
      if (this.#flipAfter < bytes.length) {
        bytes = bytes.slice();
        bytes[this.#flipAfter] ^= 0xff;
        this.#flipAfter = undefined;
      } else this.#flipAfter -= bytes.length;
    }
    if (this.#truncateAfter !== undefined) {
      if (this.#truncateAfter < bytes.length) {
        this.#to.write(bytes.slice(0, this.#truncateAfter), () => this.#options.truncated());
        this.#options.passed(this.#truncateAfter);
        this.stop();
        return;
      }
      this.#truncateAfter -= bytes.length;
    }
    this.#to.write(bytes);
    this.#options.passed(bytes.length);
  }
}
