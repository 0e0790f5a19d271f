/**
 * The public HTTP server: an OpenAI-compatible API over one engine.
 *
 * @module
 */
import { Registry } from "prom-client";
import type { EngineHandle } from "../engine/request.ts";
import type { TextCodec } from "../text/codec.ts";
import { AdmissionQueue } from "./admission_queue.ts";
import type { KeyDigest } from "./api_keys.ts";
import { createApp } from "./app.ts";
import { BackendGate } from "./backend.ts";
import type { Exchange } from "./exchange.ts";
import { isLoopback } from "./guards.ts";
import { HttpMetrics } from "./http_metrics.ts";
import { resolveLimits, type ServerLimits } from "./limits.ts";
import { HttpListener, type TlsFiles } from "./listener.ts";
import { createLogger, describeFailure, type Logger } from "./logger.ts";
import { createRoutes } from "./routes.ts";
import { Service } from "./service.ts";

export type { TlsFiles };

/** Options of {@linkcode startServer}. */
export interface ServerOptions {
  /** Engine, maybe still loading: until then generation answers 503. It stays the caller's. */
  readonly engine: EngineHandle | Promise<EngineHandle>;
  /** Tokenizer and template of the same model, maybe still loading. It stays the caller's. */
  readonly text: TextCodec | Promise<TextCodec>;
  /** Address to bind. @default {"127.0.0.1"} */
  readonly hostname?: string;
  /** Port; 0 takes any free one. @default {8080} */
  readonly port?: number;
  /** Digests of the keys that may ask; without any, everybody may. */
  readonly apiKeys?: readonly KeyDigest[];
  /** Serves HTTPS. */
  readonly tls?: TlsFiles;
  /** Browser origins that may read answers; `*` for all. @default {[]} */
  readonly corsOrigins?: readonly string[];
  /** Names under which the model is served, the first in answers to requests that name none. By default the engine's. */
  readonly servedModelNames?: readonly string[];
  /** First part of the names of metrics. @default {"infinite_llm"} */
  readonly metricsPrefix?: string;
  /** Bounds that differ from the defaults. */
  readonly limits?: Partial<ServerLimits>;
  /** Log. By default pretty lines on standard error. */
  readonly logger?: Logger;
  /** Lets a server without keys bind an address that other machines reach. @default {false} */
  readonly allowInsecureBind?: boolean;
  /** Version shown in the API document. @default {"0.1.0"} */
  readonly version?: string;
}

/** A server that listens. */
export interface RunningServer extends AsyncDisposable {
  /** Where it listens, without a slash at the end. */
  readonly url: string;
  /** Port it listens on. */
  readonly port: number;
  /**
   * Stops accepting, lets running requests finish for at most `timeoutMs`, then ends them. Returns how many were cut off.
   */
  drain(timeoutMs: number): Promise<number>;
  /** Ends everything now. */
  close(): Promise<void>;
}

/**
 * Starts a server.
 *
 * @throws {Error} when the address reaches beyond this machine and there are neither keys nor `allowInsecureBind`, or when
 * it cannot be bound.
 * @throws {RangeError} when a limit is not a positive integer.
 */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { hostname = "127.0.0.1", port = 8080, apiKeys = [], metricsPrefix = "infinite_llm" } = options;
  const limits = resolveLimits(options.limits);
  const logger = options.logger ?? createLogger();
  const loopback = isLoopback(hostname);
  if (!loopback && apiKeys.length === 0) {
    if (options.allowInsecureBind !== true) {
      throw new Error(
        `Cannot listen on ${hostname}: wanted API keys, because other machines reach this address, got none`,
      );
    }
    logger.warn("other machines can use this server without a key", { hostname });
  }

  const registry = new Registry();
  const queue = new AdmissionQueue(limits.queuedRequests);
  const gate = new BackendGate({
    engine: options.engine,
    text: options.text,
    models: options.servedModelNames ?? [],
    registry,
    metricsPrefix,
    stallMs: limits.stallMs,
    onFailure: (error) => logger.error("model failed to load", describeFailure(error)),
  });
  const routes = createRoutes({
    service: new Service({ limits, gate, queue, logger }),
    registry,
    version: options.version ?? "0.1.0",
    secured: apiKeys.length > 0,
  });
  const metrics = new HttpMetrics({
    registry,
    prefix: metricsPrefix,
    running: () => listener.running,
    queued: () => queue.length,
  });
  const listener = new HttpListener({
    limits,
    logger,
    tls: options.tls,
    handle: createApp({ routes, keys: apiKeys, corsOrigins: options.corsOrigins ?? [], loopback, logger }),
    onAnswered: (exchange, status) => {
      metrics.answered(exchange.route, status);
      logAnswer(logger, exchange, status);
    },
  });
  const boundPort = await listener.listen(hostname, port);
  const scheme = options.tls === undefined ? "http" : "https";
  const name = hostname.includes(":") ? `[${hostname}]` : hostname;
  const url = `${scheme}://${name}:${boundPort}`;
  return new ListeningServer({ url, port: boundPort, listener, gate, releaseRejections: holdRejections(logger) });
}

interface ListeningParts {
  readonly url: string;
  readonly port: number;
  readonly listener: HttpListener;
  readonly gate: BackendGate;
  readonly releaseRejections: () => void;
}

class ListeningServer implements RunningServer {
  readonly url: string;
  readonly port: number;
  readonly #parts: ListeningParts;

  constructor(parts: ListeningParts) {
    this.url = parts.url;
    this.port = parts.port;
    this.#parts = parts;
  }

  async drain(timeoutMs: number): Promise<number> {
    this.#parts.gate.stop();
    const cutOff = await this.#parts.listener.drain(timeoutMs);
    this.#parts.releaseRejections();
    return cutOff;
  }

  async close(): Promise<void> {
    await this.drain(0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function logAnswer(logger: Logger, exchange: Exchange, status: number): void {
  const { incoming, id, notes, route, arrivedMs } = exchange;
  logger.info("request", {
    id,
    method: incoming.method,
    // Paths that are no route may hold anything.
    path: route === "" ? "(none)" : route,
    status,
    ms: Math.round(performance.now() - arrivedMs),
    ...notes,
  });
}

/** Logs promises that nobody waited for instead of ending the process. Returns how to stop doing so. */
function holdRejections(logger: Logger): () => void {
  const hold = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    logger.error("a promise was rejected and nobody waited for it", describeFailure(event.reason));
  };
  globalThis.addEventListener("unhandledrejection", hold);
  return () => globalThis.removeEventListener("unhandledrejection", hold);
}
