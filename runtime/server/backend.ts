/**
 * What answers generation requests, once it has loaded.
 *
 * @module
 */
import type { Registry } from "prom-client";
import type { ClusterControl } from "../cluster/report.ts";
import type { EngineHandle, EngineStats } from "../engine/request.ts";
import type { TextCodec } from "../text/codec.ts";
import { ApiError } from "./api_error.ts";
import { ClusterMetrics } from "./cluster_metrics.ts";
import { type InstanceState, inTime, unready } from "./instance_state.ts";
import { GenerationMetrics } from "./metrics.ts";
import { ModelLength } from "./model_length.ts";
import { TokenTexts } from "./token_texts.ts";

/** A loaded engine with its text codec. */
export interface Backend {
  /** Engine. */
  readonly engine: EngineHandle;
  /** Longest prompt plus output that it can run now. */
  readonly length: ModelLength;
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

/** Holds the backend back until it has loaded, and tells whether it gets on with its work. */
export class BackendGate implements InstanceState {
  readonly #stallMs: number;
  #backend: Backend | undefined;
  #clusterMetrics: ClusterMetrics | undefined;
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
        const { cluster } = engine;
        if (cluster !== undefined) this.#clusterMetrics = new ClusterMetrics({ registry, prefix });
        const length = new ModelLength({ alone: engine.info.maxModelLen, cluster, now: () => performance.now() });
        this.#backend = { engine, length, text, texts: new TokenTexts(text.vocabulary), models, metrics };
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
    return await inTime(this.#backend?.engine.stats());
  }

  async refreshMetrics(): Promise<void> {
    const [stats, report] = await Promise.all([this.stats(), inTime(this.#backend?.engine.cluster?.report())]);
    if (stats !== undefined) this.#backend?.metrics.refresh(stats);
    if (report !== undefined) this.#clusterMetrics?.refresh(report);
  }

  requireCluster(): ClusterControl {
    // An instance that stops is still in its cluster, and operators want to see how it leaves.
    const cluster = (this.#backend ?? this.require()).engine.cluster;
    if (cluster === undefined) {
      throw new ApiError("Cannot show the cluster: this instance is in none, see serve --join and --cluster-listen", {
        status: 404,
        code: "no_cluster",
      });
    }
    return cluster;
  }
}
