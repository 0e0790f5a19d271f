/**
 * The door: `node:http` with its time-outs and caps, one {@linkcode Exchange} a request, liveness answered at once.
 *
 * @module
 */
import { createServer, type IncomingMessage, type Server, type ServerOptions, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { randomUUID } from "node:crypto";
import { ApiError, errorResponse, toApiError } from "./api_error.ts";
import { checkHeaderSection } from "./guards.ts";
import { refusalBytes } from "./refusal_bytes.ts";
import type { Exchange } from "./exchange.ts";
import type { ServerLimits } from "./limits.ts";
import { describeFailure, type Logger } from "./logger.ts";
import { writeResponse } from "./write_response.ts";

/** Certificate and private key, PEM. */
export interface TlsFiles {
  /** Certificate chain. */
  readonly cert: string;
  /** Private key. */
  readonly key: string;
}

/** Options of {@linkcode HttpListener}. */
export interface HttpListenerOptions {
  /** Bounds. */
  readonly limits: ServerLimits;
  /** Log. */
  readonly logger: Logger;
  /** Serves HTTPS when present. */
  readonly tls?: TlsFiles;
  /** Answers a request; what it throws becomes an error answer. */
  readonly handle: (exchange: Exchange) => Promise<Response>;
  /** Told about every answered request. */
  readonly onAnswered: (exchange: Exchange, status: number) => void;
}

interface Running {
  readonly exchange: Exchange;
  readonly controller: AbortController;
  readonly done: Promise<void>;
}

const REQUEST_ID = /^[\w.:-]{1,128}$/;
const ALIVE = JSON.stringify({ status: "ok" });
const ALIVE_HEADERS = ["content-type", "application/json", "content-length", String(ALIVE.length)];
const CHECK_MS = 500;
/** For requests that were cut off to say so. */
const FAREWELL_MS = 1000;
/** For the last bytes to reach the kernel. */
const FLUSH_MS = 250;

/** Accepts connections and turns them into exchanges. */
export class HttpListener implements AsyncDisposable {
  readonly #options: HttpListenerOptions;
  readonly #server: Server;
  readonly #running = new Map<ServerResponse, Running>();
  readonly #bySocket = new WeakMap<Duplex, ServerResponse>();
  readonly #hurry = Promise.withResolvers<void>();
  #stopping = false;
  #drained: Promise<number> | undefined;
  #listening = false;

  /** Makes one that does not listen yet. */
  constructor(options: HttpListenerOptions) {
    this.#options = options;
    const { limits, tls } = options;
    const settings: ServerOptions = {
      headersTimeout: limits.headerMs,
      requestTimeout: Math.max(limits.bodyMs, limits.headerMs),
      keepAliveTimeout: limits.idleMs,
      connectionsCheckingInterval: Math.min(CHECK_MS, limits.headerMs, limits.bodyMs),
      maxHeaderSize: limits.headerBytes,
      // Checked by hand, so that the answer has a body.
      requireHostHeader: false,
    };
    const server: Server = tls === undefined ? createServer(settings) : createTlsServer({ ...settings, ...tls });
    server.maxConnections = limits.connections;
    server.maxHeadersCount = 0;
    server.on("request", (incoming, outgoing) => this.#accept(incoming, outgoing));
    server.on("checkContinue", (incoming, outgoing) => this.#accept(incoming, outgoing, { wantsContinue: true }));
    server.on("checkExpectation", (_incoming, outgoing) => this.#refuseExpectation(outgoing));
    server.on("clientError", (error, socket) => this.#refuseBytes(error, socket));
    this.#server = server;
  }

  /** Requests being answered. */
  get running(): number {
    return this.#running.size;
  }

  /**
   * Begins to listen; port 0 takes any free one. Returns the port.
   *
   * @throws {Error} when the address cannot be bound.
   */
  async listen(hostname: string, port: number): Promise<number> {
    await new Promise<void>((resolve, reject) => {
      const fail = (cause: Error) => {
        const reason = "code" in cause ? String(cause.code) : cause.message;
        reject(new Error(`Cannot listen on ${hostname}:${port}: ${reason}`, { cause }));
      };
      this.#server.once("error", fail);
      this.#server.listen(port, hostname, () => {
        this.#server.off("error", fail);
        resolve();
      });
    });
    this.#listening = true;
    // Accepting may fail later, for example for want of file descriptors; what is open goes on.
    this.#server.on("error", (error) => this.#options.logger.error("accepting failed", describeFailure(error)));
    const address = this.#server.address();
    return typeof address === "object" && address !== null ? address.port : port;
  }

  /**
   * Stops accepting, lets running requests finish for at most `timeoutMs`, then ends them and every connection. Returns
   * how many requests were cut off. A second call may shorten the time of the first.
   */
  async drain(timeoutMs: number): Promise<number> {
    this.#drained ??= this.#drain();
    await within(timeoutMs, this.#drained);
    this.#hurry.resolve();
    return await this.#drained;
  }

  /** Ends everything now. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.drain(0);
  }

  async #drain(): Promise<number> {
    this.#stopping = true;
    if (!this.#listening) return 0;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeIdleConnections();
    await Promise.race([this.#hurry.promise, this.#finished()]);
    const cutOff = [...this.#running.values()];
    for (const { controller } of cutOff) {
      controller.abort(
        new ApiError("Cannot finish the request: the server is stopping", { status: 503, code: "shutting_down" }),
      );
    }
    await within(FAREWELL_MS, this.#finished());
    await within(FLUSH_MS, closed);
    this.#server.closeAllConnections();
    await closed;
    return cutOff.length;
  }

  async #finished(): Promise<void> {
    await Promise.all([...this.#running.values()].map((running) => running.done));
  }

  #accept(incoming: IncomingMessage, outgoing: ServerResponse, options = { wantsContinue: false }): void {
    if (incoming.url === "/health" && (incoming.method === "GET" || incoming.method === "HEAD")) {
      outgoing.writeHead(200, ALIVE_HEADERS).end(ALIVE);
      return;
    }
    const controller = new AbortController();
    const given = incoming.headers["x-request-id"];
    const exchange: Exchange = {
      id: typeof given === "string" && REQUEST_ID.test(given) ? given : randomUUID(),
      incoming,
      outgoing,
      arrivedMs: performance.now(),
      signal: controller.signal,
      wantsContinue: options.wantsContinue,
      notes: {},
      route: "",
      tenant: "",
    };
    const { promise: done, resolve } = Promise.withResolvers<void>();
    this.#running.set(outgoing, { exchange, controller, done });
    this.#bySocket.set(incoming.socket, outgoing);
    // A broken connection is told by `close`; without listeners these would end the process.
    incoming.on("error", () => {});
    outgoing.on("error", () => {});
    outgoing.once("close", () => {
      this.#running.delete(outgoing);
      if (!outgoing.writableFinished) {
        controller.abort(
          new ApiError("Cannot finish the request: the client is gone", { status: 499, code: "client_disconnected" }),
        );
      }
      this.#options.onAnswered(exchange, outgoing.writableFinished ? outgoing.statusCode : 499);
      // The answer may still be on its way to the kernel: end the connection behind it, not under it.
      if (this.#stopping && this.#bySocket.get(incoming.socket) === outgoing) incoming.socket.destroySoon();
      resolve();
    });
    void this.#answer(exchange);
  }

  async #answer(exchange: Exchange): Promise<void> {
    const { outgoing } = exchange;
    try {
      const response = await this.#respond(exchange);
      if (outgoing.destroyed) {
        await response.body?.cancel();
        return;
      }
      outgoing.setHeader("x-request-id", exchange.id);
      if (this.#stopping || !exchange.incoming.complete) outgoing.setHeader("connection", "close");
      await writeResponse(outgoing, response, {
        ...this.#options.limits,
        onSlowReader: () => exchange.notes.slow_reader = true,
      });
    } catch (error) {
      this.#options.logger.error("answer failed", { id: exchange.id, ...describeFailure(error) });
      outgoing.destroy();
    }
  }

  async #respond(exchange: Exchange): Promise<Response> {
    try {
      checkHeaderSection(exchange.incoming, this.#options.limits.headerFields);
      return await this.#options.handle(exchange);
    } catch (error) {
      const answer = toApiError(error);
      if (answer.status === 500) {
        this.#options.logger.error("request failed", { id: exchange.id, ...describeFailure(error) });
      }
      return errorResponse(answer);
    }
  }

  #refuseExpectation(outgoing: ServerResponse): void {
    const error = new ApiError("Cannot meet the expectation: only 100-continue is known", {
      status: 417,
      code: "unknown_expectation",
    });
    const body = JSON.stringify(error.body);
    outgoing.writeHead(417, {
      "content-type": "application/json",
      "content-length": body.length,
      connection: "close",
    });
    outgoing.end(body);
  }

  /** Answers bytes that are not a request, unless an answer to an earlier request is on its way. */
  #refuseBytes(error: Error, socket: Duplex): void {
    const outgoing = this.#bySocket.get(socket);
    const running = outgoing && this.#running.get(outgoing);
    const inBody = running !== undefined && !running.exchange.incoming.complete &&
      !running.exchange.outgoing.headersSent;
    if (!socket.writable || (running !== undefined && !inBody)) {
      socket.destroy();
      return;
    }
    socket.end(refusalBytes("code" in error ? String(error.code) : ""));
    // A peer that never closes its side would hold the connection.
    if ("destroySoon" in socket) (socket as Socket).destroySoon();
  }
}

async function within(ms: number, work: Promise<unknown>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<void>((resolve) => timer = setTimeout(resolve, ms));
  await Promise.race([late, work]);
  clearTimeout(timer);
}
