/**
 * What answers generation requests, once it has loaded.
 *
 * @module
 */
import type { Registry } from "prom-client";
import type { EngineHandle, EngineStats } from "../engine/request.ts";
import type { TextCodec } from "../text/codec.ts";
import { ApiError } from "./api_error.ts";
import { GenerationMetrics } from "./metrics.ts";
import { TokenTexts } from "./token_texts.ts";

/** A loaded engine with its text codec. */
export interface Backend {
  /** Engine. */
  readonly engine: EngineHandle;
  /** Tokenizer and chat template. */
  readonly text: TextCodec;
  /** Texts of single tokens. */
  readonly texts: TokenTexts;
  /** Names under which the model is served; the first is its own. */
  readonly models: readonly string[];
  /** Observes requests. */
  readonly metrics: GenerationMetrics;
}

/** Options of {@linkcode BackendGate}. */
export interface BackendGateOptions {
  /** Engine, maybe still loading. */
  readonly engine: EngineHandle | Promise<EngineHandle>;
  /** Text codec, maybe still loading. */
  readonly text: TextCodec | Promise<TextCodec>;
  /** Served names; the engine's own when empty. */
  readonly models: readonly string[];
  /** Where the backend's metrics are registered. */
  readonly registry: Registry;
  /** First part of their names. */
  readonly metricsPrefix: string;
  /** Milliseconds without progress after which a busy engine counts as stalled. */
  readonly stallMs: number;
  /** Told when loading failed. */
  readonly onFailure: (error: unknown) => void;
}

const STATS_MS = 2000;

/** Holds the backend back until it has loaded, and tells whether it gets on with its work. */
export class BackendGate {
  readonly #stallMs: number;
  #backend: Backend | undefined;
  #failed = false;
  #stopping = false;
  #progress = { counters: "", sinceMs: 0 };

  /** Waits for the engine and the codec in the background. */
  constructor(options: BackendGateOptions) {
    this.#stallMs = options.stallMs;
    void Promise.all([options.engine, options.text]).then(
      ([engine, text]) => {
        const models = options.models.length > 0 ? options.models : [engine.info.model];
        const { registry, metricsPrefix: prefix } = options;
        const metrics = new GenerationMetrics({ registry, prefix, model: models[0], engine });
        this.#backend = { engine, text, texts: new TokenTexts(text.vocabulary), models, metrics };
      },
    ).catch((error) => {
      this.#failed = true;
      options.onFailure(error);
    });
  }

  /** The backend, if it has loaded. */
  get current(): Backend | undefined {
    return this.#backend;
  }

  /**
   * The backend.
   *
   * @throws {ApiError} 503 with `Retry-After` while it loads, after it failed to, and when the server stops.
   */
  require(): Backend {
    if (this.#stopping) throw unready("shutting_down", "the server is stopping");
    if (this.#failed) throw unready("model_failed", "the model could not be loaded");
    if (this.#backend === undefined) throw unready("model_loading", "the model is still loading");
    return this.#backend;
  }

  /** Refuses new work from now on. */
  stop(): void {
    this.#stopping = true;
  }

  /**
   * Checks that the backend serves: it has loaded, answers, and has nothing to do or has made progress lately.
   *
   * @throws {ApiError} 503 when one of these does not hold.
   */
  async checkReady(): Promise<void> {
    const { metrics } = this.require();
    const stats = await this.stats();
    if (stats === undefined) throw unready("engine_unresponsive", "the engine does not answer");
    const now = performance.now();
    const { waiting, running, steps, promptTokens, generatedTokens } = stats;
    const counters = `${steps} ${promptTokens} ${generatedTokens}`;
    if (waiting + running === 0 || counters !== this.#progress.counters) this.#progress = { counters, sinceMs: now };
    if (now - Math.max(this.#progress.sinceMs, metrics.lastEventMs) > this.#stallMs) {
      throw unready("engine_stalled", "work waits and no token was produced lately");
    }
  }

  /** Counters of the engine; undefined when it has not loaded or does not answer in time. */
  async stats(): Promise<EngineStats | undefined> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<undefined>((resolve) => timer = setTimeout(() => resolve(undefined), STATS_MS));
    try {
      return await Promise.race([this.#backend?.engine.stats(), late]);
    } catch {
      return undefined;
    } finally {
      clearTimeout(timer);
    }
  }
}

function unready(code: string, problem: string): ApiError {
  return new ApiError(`Cannot serve the request: ${problem}`, { status: 503, code, headers: { "retry-after": "5" } });
}
