/**
 * The public HTTP server: an OpenAI-compatible API over one engine.
 *
 * @module
 */
import { Registry } from "prom-client";
import type { ClusterControl } from "../cluster/report.ts";
import type { EngineHandle } from "../engine/request.ts";
import type { TextCodec } from "../text/codec.ts";
import { AdmissionQueue } from "./admission_queue.ts";
import type { KeyDigest } from "./api_keys.ts";
import { createApp } from "./app.ts";
import { BackendGate } from "./backend.ts";
import type { Exchange } from "./exchange.ts";
import { isLoopback } from "./guards.ts";
import { createHolderRoutes } from "./holder_routes.ts";
import { HolderState } from "./holder_state.ts";
import { HttpMetrics } from "./http_metrics.ts";
import type { InstanceState } from "./instance_state.ts";
import { resolveLimits, type ServerLimits } from "./limits.ts";
import { HttpListener, type TlsFiles } from "./listener.ts";
import { createLogger, describeFailure, type Logger } from "./logger.ts";
import { createRoutes, type Route } from "./routes.ts";
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
  return await listen(options, ({ registry, metricsPrefix, limits, logger, ...document }) => {
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
    const service = new Service({ limits, gate, queue, logger });
    return {
      state: gate,
      queued: () => queue.length,
      routes: createRoutes({ service, registry, ...document }),
    };
  });
}

/** Options of {@linkcode startHolderServer}. */
export interface HolderServerOptions extends Omit<ServerOptions, "engine" | "text" | "servedModelNames"> {
  /** Holder, maybe still starting. It stays the caller's. */
  readonly holder: Promise<{ readonly cluster: ClusterControl }>;
}

/**
 * Starts the server of an instance that lends memory and runs no model: liveness, readiness, metrics and the cluster.
 *
 * @throws as {@linkcode startServer} does.
 */
export async function startHolderServer(options: HolderServerOptions): Promise<RunningServer> {
  return await listen(options, ({ registry, metricsPrefix, limits, logger, ...document }) => {
    const state = new HolderState({ holder: options.holder, registry, metricsPrefix, logger });
    return {
      state,
      queued: () => 0,
      routes: createHolderRoutes({ state, registry, limits, ...document }),
    };
  });
}

/** What the parts of a server are made of. */
interface DoorParts {
  readonly registry: Registry;
  readonly metricsPrefix: string;
  readonly limits: ServerLimits;
  readonly logger: Logger;
  readonly version: string;
  readonly secured: boolean;
  readonly operable: boolean;
}

/** What stands behind the door. */
interface Interior {
  readonly state: InstanceState;
  /** Requests without a token yet. */
  readonly queued: () => number;
  readonly routes: readonly Route[];
}

async function listen(
  options: Omit<ServerOptions, "engine" | "text">,
  furnish: (parts: DoorParts) => Interior,
): Promise<RunningServer> {
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
  const secured = apiKeys.length > 0;
  const { state, queued, routes } = furnish({
    registry,
    metricsPrefix,
    limits,
    logger,
    version: options.version ?? "0.1.0",
    secured,
    operable: secured || loopback,
  });
  const metrics = new HttpMetrics({ registry, prefix: metricsPrefix, running: () => listener.running, queued });
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
  return new ListeningServer({ url, port: boundPort, listener, state, releaseRejections: holdRejections(logger) });
}

interface ListeningParts {
  readonly url: string;
  readonly port: number;
  readonly listener: HttpListener;
  readonly state: InstanceState;
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
    this.#parts.state.stop();
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
