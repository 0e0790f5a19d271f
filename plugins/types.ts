/**
 * Types of scheduler policies. A policy is a plain object, the default export of its module; all of its state lives in
 * what `create` returns, time and randomness come from the context, so a run can be replayed.
 *
 * @example
 * ```ts
 * import type { SchedulerPlugin } from "@infinite-llm/runtime/plugin";
 *
 * const shortestFirst: SchedulerPlugin = {
 *   api: 1,
 *   kind: "scheduler",
 *   name: "shortest-first",
 *   version: "1.0.0",
 *   create: () => ({}),
 *   rank(_state, queue, out) {
 *     for (let i = 0; i < queue.length; i++) out[i] = queue.promptTokens[i];
 *   },
 * };
 * export default shortestFirst;
 * ```
 *
 * @module
 */

/** Version of this interface; a plugin states the version it was written for. */
export const PLUGIN_API = 1;

/** JSON Schema (2020-12) of a plugin's options. */
export type JsonSchema = { readonly [key: string]: unknown };

/** What every plugin states about itself. */
export interface PluginBase {
  /** Interface version, {@linkcode PLUGIN_API}. */
  readonly api: 1;
  /** Kebab-case name, used in metrics and messages. */
  readonly name: string;
  /** Semantic version. */
  readonly version: string;
  /** Schema that the options are checked against; without it, options are refused. */
  readonly configSchema?: JsonSchema;
}

/** Services of the host; the only way to the outside. */
export interface PluginContext<Config = unknown> {
  /** Options, checked against the schema. */
  readonly config: Readonly<Config>;
  /** Milliseconds of a monotonic clock. */
  now(): number;
  /** Uniform in [0, 1), seeded. */
  random(): number;
  /** Writes one line to the server's log. */
  log(message: string): void;
}

/** A request at the door. */
export interface RequestView {
  /** Request id. */
  readonly id: string;
  /** Prompt length, tokens. */
  readonly promptTokens: number;
  /** Most tokens it may generate. */
  readonly maxTokens: number;
  /** Client's priority, lower first, 0 by default. */
  readonly priority: number;
  /** Tenant, an opaque id. */
  readonly tenant: string;
}

/** State of the instance. */
export interface InstanceView {
  /** Requests waiting. */
  readonly waiting: number;
  /** Sequences running. */
  readonly running: number;
  /** KV blocks in all. */
  readonly totalBlocks: number;
  /** KV blocks neither owned nor cached, plus cached blocks that may be evicted. */
  readonly availableBlocks: number;
  /** Tokens of one block. */
  readonly blockTokens: number;
}

/** Answer of `admit`. A rejection becomes an HTTP error with that status. */
export type Admission =
  | { readonly kind: "accept" }
  | { readonly kind: "reject"; readonly status: 429 | 503; readonly reason: string };

/** Sequences as struct of arrays: element i of each array is about the same sequence. Valid during the call only. */
export interface QueueView {
  /** Sequences in the view. */
  readonly length: number;
  /** Handle that plans and events use for the sequence. */
  readonly id: Int32Array;
  /** Prompt tokens. */
  readonly promptTokens: Int32Array;
  /** Tokens whose KV is still to be computed before the sequence decodes (0 while decoding). */
  readonly pendingTokens: Int32Array;
  /** Tokens generated so far. */
  readonly generatedTokens: Int32Array;
  /** Most tokens it may generate. */
  readonly maxTokens: Int32Array;
  /** Client's priority, lower first. */
  readonly priority: Float64Array;
  /** Time it arrived, on the context's clock, ms. */
  readonly arrivedMs: Float64Array;
  /** KV blocks it owns. */
  readonly blocks: Int32Array;
  /** Times it was preempted. */
  readonly preemptions: Int32Array;
  /** 1 while it runs (owns blocks), 0 while it waits. */
  readonly running: Uint8Array;
}

/** What `plan` sees. */
export interface StepView {
  /** All live sequences, running ones first, each part in rank order. */
  readonly queue: QueueView;
  /** The instance. */
  readonly instance: InstanceView;
  /** Most tokens this step may compute. */
  readonly tokenBudget: number;
  /** Most sequences this step may compute. */
  readonly maxSequences: number;
}

/** What `plan` writes: tokens for each sequence and the sequences to preempt. Starts empty. */
export interface StepPlan {
  /** Computes `tokens` tokens of the sequence: 1 when decoding, at most `pendingTokens` in prefill. */
  schedule(id: number, tokens: number): void;
  /** Takes a running sequence's blocks away; it is computed again later, nothing is lost. */
  preempt(id: number): void;
}

/** What happened in the engine. */
export type EngineEvent =
  | { readonly kind: "queued" | "started" | "first-token" | "preempted"; readonly id: number; readonly atMs: number }
  | { readonly kind: "ended"; readonly id: number; readonly atMs: number; readonly reason: string };

/** A scheduler policy. Every hook is optional; without one the host's default acts. */
export interface SchedulerPlugin<Config = unknown, State = unknown> extends PluginBase {
  /** Kind of plugin. */
  readonly kind: "scheduler";
  /** Makes the state that every hook receives. */
  create(context: PluginContext<Config>): State;
  /** Accepts or rejects a request. */
  admit?(state: State, request: RequestView, instance: InstanceView): Admission;
  /** Writes one finite number per sequence, lower first. The host breaks ties by arrival. */
  rank?(state: State, queue: QueueView, out: Float64Array): void;
  /** Plans one step. The host checks it and falls back to its own plan when it is invalid or starves a sequence. */
  plan?(state: State, step: StepView, out: StepPlan): void;
  /** Sees events after each step. */
  observe?(state: State, events: readonly EngineEvent[]): void;
  /** Frees what `create` acquired. */
  dispose?(state: State): void;
}
