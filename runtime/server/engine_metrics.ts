/**
 * Metrics that an engine counts itself.
 *
 * @module
 */
import { Counter, Gauge, type Registry } from "prom-client";
import type { EngineHandle, EngineStats } from "../engine/request.ts";

/** What metrics of one model need. */
export interface ModelMetricsOptions {
  /** Where the metrics are registered. */
  readonly registry: Registry;
  /** First part of every name. */
  readonly prefix: string;
  /** Value of the label `model_name`. */
  readonly model: string;
  /** Engine whose counters are reported. */
  readonly engine: EngineHandle;
}

type EngineReading = readonly [name: string, help: string, read: (stats: EngineStats) => number];

const ENGINE_COUNTERS: readonly EngineReading[] = [
  ["num_preemptions_total", "Preemptions.", (stats) => stats.preemptions],
  ["prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.", (stats) => stats.prefixQueries],
  ["prefix_cache_hits_total", "Prompt tokens found in the prefix cache.", (stats) => stats.prefixHits],
  ["generation_tokens_total", "Tokens generated, those of cancelled requests included.", (s) => s.generatedTokens],
  ["engine_prompt_tokens_total", "Prompt tokens computed, cached ones not counted.", (stats) => stats.promptTokens],
  ["engine_steps_total", "Engine steps.", (stats) => stats.steps],
  ["engine_step_seconds_total", "Seconds inside device steps.", (stats) => stats.stepSeconds],
];

const ENGINE_GAUGES: readonly EngineReading[] = [
  ["num_requests_running", "Sequences running.", (stats) => stats.running],
  ["num_requests_waiting", "Sequences waiting.", (stats) => stats.waiting],
  ["kv_cache_usage_perc", "Share of KV blocks in use, 0 to 1.", ({ blocks }) => blocks.owned / (blocks.total || 1)],
];

/** Registers what the engine counts itself; returns how to bring it up to date. */
export function registerEngineMetrics(options: ModelMetricsOptions): (stats: EngineStats) => void {
  const { registry, prefix, model, engine } = options;
  const names = { model_name: model };
  const base = { registers: [registry], labelNames: ["model_name"] };
  const readings = [
    ...ENGINE_COUNTERS.map(([name, help, read]) => {
      return { metric: new Counter({ ...base, name: `${prefix}:${name}`, help }), read };
    }),
    ...ENGINE_GAUGES.map(([name, help, read]) => {
      return { metric: new Gauge({ ...base, name: `${prefix}:${name}`, help }), read };
    }),
  ];
  const blocks = new Gauge({
    registers: [registry],
    labelNames: ["model_name", "state"],
    name: `${prefix}:kv_blocks`,
    help: "KV blocks by state.",
  });
  const fallbacks = new Counter({
    registers: [registry],
    labelNames: ["model_name", "hook"],
    name: `${prefix}:policy_fallbacks_total`,
    help: "Policy answers discarded, by hook.",
  });
  const { info } = engine;
  new Gauge({
    registers: [registry],
    labelNames: ["model_name", "kv_tokens", "kv_bytes", "weight_bytes", "max_model_len", "device", "scheduler"],
    name: `${prefix}:cache_config_info`,
    help: "Facts of the engine, always 1.",
  }).set({
    ...names,
    kv_tokens: info.kvTokens,
    kv_bytes: info.kvBytes,
    weight_bytes: info.weightBytes,
    max_model_len: info.maxModelLen,
    device: info.device,
    scheduler: info.scheduler,
  }, 1);
  return (stats) => {
    for (const { metric, read } of readings) {
      metric.reset();
      metric.inc(names, read(stats));
    }
    for (const state of ["free", "owned", "cached"] as const) blocks.set({ ...names, state }, stats.blocks[state]);
    fallbacks.reset();
    for (const [hook, count] of Object.entries(stats.policyFallbacks)) fallbacks.inc({ ...names, hook }, count);
  };
}
