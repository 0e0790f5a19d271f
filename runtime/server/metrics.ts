/**
 * Prometheus metrics with vLLM's names and bucket edges.
 *
 * @module
 */
import { Counter, Histogram } from "prom-client";
import type { EngineRequest, EngineStats, FinishReason, RequestEvent } from "../engine/request.ts";
import { type ModelMetricsOptions, registerEngineMetrics } from "./engine_metrics.ts";

const FIRST_TOKEN_BUCKETS = [
  0.001,
  0.005,
  0.01,
  0.02,
  0.04,
  0.06,
  0.08,
  0.1,
  0.25,
  0.5,
  0.75,
  1,
  2.5,
  5,
  7.5,
  10,
  20,
  40,
  80,
  160,
  640,
  2560,
];
const TOKEN_BUCKETS = [
  0.01,
  0.025,
  0.05,
  0.075,
  0.1,
  0.15,
  0.2,
  0.3,
  0.4,
  0.5,
  0.75,
  1,
  2.5,
  5,
  7.5,
  10,
  20,
  40,
  80,
];
const REQUEST_BUCKETS = [
  0.3,
  0.5,
  0.8,
  1,
  1.5,
  2,
  2.5,
  5,
  10,
  15,
  20,
  30,
  40,
  50,
  60,
  120,
  240,
  480,
  960,
  1920,
  7680,
];
const CHOICE_BUCKETS = [1, 2, 5, 10, 20];

/** 1, 2, 5, 10, 20, 50, … up to `most`. */
function decades(most: number): number[] {
  const edges: number[] = [];
  for (let power = 1; power <= most; power *= 10) {
    for (const digit of [1, 2, 5]) if (digit * power <= most) edges.push(digit * power);
  }
  return edges;
}

type ModelLabel = "model_name";

/** One request as the metrics see it. */
export interface RequestObservation {
  /** Takes one of its events. */
  record(event: RequestEvent): void;
  /** Counts it once, whatever happened to it. */
  close(): void;
}

/** Metrics of generation: what the server observes itself and what the engine counts. */
export class GenerationMetrics {
  readonly #names: { readonly model_name: string };
  readonly #promptTokens: Counter<ModelLabel>;
  readonly #finished: Counter<ModelLabel | "finished_reason">;
  readonly #histograms: ReturnType<typeof requestHistograms>;
  readonly #refresh: (stats: EngineStats) => void;
  #lastEventMs = 0;

  /** Registers the metrics. */
  constructor(options: ModelMetricsOptions) {
    const { registry, prefix, model } = options;
    const base = { registers: [registry], labelNames: ["model_name"] as const };
    this.#names = { model_name: model };
    this.#histograms = requestHistograms(options);
    this.#promptTokens = new Counter({
      ...base,
      name: `${prefix}:prompt_tokens_total`,
      help: "Prompt tokens processed.",
    });
    this.#promptTokens.inc(this.#names, 0);
    this.#finished = new Counter({
      registers: [registry],
      labelNames: ["model_name", "finished_reason"],
      name: `${prefix}:request_success_total`,
      help: "Requests that ended, by reason.",
    });
    for (const reason of Object.values(FINISHED_REASON)) {
      this.#finished.inc({ ...this.#names, finished_reason: reason }, 0);
    }
    this.#refresh = registerEngineMetrics(options);
  }

  /** When the last event of any request came, ms on the monotonic clock; 0 before the first. */
  get lastEventMs(): number {
    return this.#lastEventMs;
  }

  /** Takes the engine's counters over. */
  refresh(stats: EngineStats): void {
    this.#refresh(stats);
  }

  /** Begins to observe a request that arrived at `arrivedMs` of the monotonic clock. */
  begin(request: EngineRequest, arrivedMs: number): RequestObservation {
    const names = this.#names;
    const histograms = this.#histograms;
    const n = request.n ?? 1;
    const lastTokenMs = new Map<number, number>();
    const generated = new Array<number>(n).fill(0);
    let reason: FinishReason | undefined;
    let closed = false;
    let end: Extract<RequestEvent, { kind: "end" }> | undefined;
    histograms.choices.observe(names, n);
    histograms.maxTokens.observe(names, request.maxTokens);
    const recordTokens = (index: number, count: number, now: number) => {
      const last = lastTokenMs.get(index);
      let gaps = count;
      if (last === undefined) {
        if (lastTokenMs.size === 0) histograms.firstToken.observe(names, (now - arrivedMs) / 1000);
        gaps--;
      }
      // Tokens that came joined share the time since the one before them.
      for (let i = 0; i < gaps; i++) histograms.interToken.observe(names, (now - (last ?? now)) / 1000 / gaps);
      lastTokenMs.set(index, now);
      generated[index] += count;
    };
    return {
      record: (event) => {
        const now = performance.now();
        this.#lastEventMs = now;
        if (event.kind === "token" && event.ids.length > 0) recordTokens(event.index, event.ids.length, now);
        else if (event.kind === "choice-end") reason = worse(reason, event.reason);
        else if (event.kind === "end") end = event;
      },
      close: () => {
        if (closed) return;
        closed = true;
        const total = generated.reduce((sum, count) => sum + count, 0);
        const outcome = end === undefined ? "cancelled" : end.error !== undefined ? "error" : reason ?? "length";
        this.#finished.inc({ ...names, finished_reason: FINISHED_REASON[outcome] });
        if (end === undefined) return;
        this.#promptTokens.inc(names, end.usage.promptTokens);
        histograms.promptTokens.observe(names, end.usage.promptTokens);
        histograms.generatedTokens.observe(names, total);
        histograms.mostGeneratedTokens.observe(names, Math.max(...generated));
        histograms.endToEnd.observe(names, (performance.now() - arrivedMs) / 1000);
        histograms.queued.observe(names, end.timing.queuedMs / 1000);
        histograms.prefill.observe(names, end.timing.prefillMs / 1000);
        histograms.decode.observe(names, end.timing.decodeMs / 1000);
        histograms.inference.observe(names, (end.timing.prefillMs + end.timing.decodeMs) / 1000);
      },
    };
  }
}

const FINISHED_REASON: Readonly<Record<FinishReason, string>> = {
  stop: "stop",
  length: "length",
  cancelled: "abort",
  error: "error",
};

function worse(a: FinishReason | undefined, b: FinishReason): FinishReason {
  const order: readonly (FinishReason | undefined)[] = [undefined, "stop", "length", "cancelled", "error"];
  return order.indexOf(a) > order.indexOf(b) && a !== undefined ? a : b;
}

function requestHistograms({ registry, prefix, engine }: ModelMetricsOptions) {
  const make = (name: string, help: string, buckets: number[]): Histogram<ModelLabel> =>
    new Histogram({ registers: [registry], labelNames: ["model_name"], name: `${prefix}:${name}`, help, buckets });
  const tokens = decades(engine.info.maxModelLen);
  return {
    firstToken: make("time_to_first_token_seconds", "Time to the first token.", FIRST_TOKEN_BUCKETS),
    interToken: make("inter_token_latency_seconds", "Time between two tokens.", TOKEN_BUCKETS),
    endToEnd: make("e2e_request_latency_seconds", "Time of a whole request.", REQUEST_BUCKETS),
    queued: make("request_queue_time_seconds", "Time a request waited.", REQUEST_BUCKETS),
    prefill: make("request_prefill_time_seconds", "Time a request spent in prefill.", REQUEST_BUCKETS),
    decode: make("request_decode_time_seconds", "Time a request spent in decoding.", REQUEST_BUCKETS),
    inference: make("request_inference_time_seconds", "Time a request spent running.", REQUEST_BUCKETS),
    promptTokens: make("request_prompt_tokens", "Prompt tokens of a request.", tokens),
    generatedTokens: make("request_generation_tokens", "Tokens generated for a request.", tokens),
    mostGeneratedTokens: make("request_max_num_generation_tokens", "Tokens of a request's longest choice.", tokens),
    maxTokens: make("request_params_max_tokens", "max_tokens of a request.", tokens),
    choices: make("request_params_n", "n of a request.", CHOICE_BUCKETS),
  } as const;
}
