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

/** Members of the cluster as struct of arrays: element i of each array is about the same member. Valid during the call only. */
export interface MembersView {
  /** Members. */
  readonly length: number;
  /** Name. */
  readonly name: readonly string[];
  /** 1 where the member runs requests, 0 for a holder. */
  readonly full: Uint8Array;
  /** 1 while it may be given work or blocks: it is alive, not leaving, and its KV format fits. */
  readonly usable: Uint8Array;
  /** Segments in its pool. */
  readonly totalSegments: Int32Array;
  /** Segments it would lend now. */
  readonly lendableSegments: Int32Array;
  /** Segments it has lent. */
  readonly lentSegments: Int32Array;
  /** Segments its own sequences have in its pool. */
  readonly ownSegments: Int32Array;
  /** Segments it has borrowed. */
  readonly borrowedSegments: Int32Array;
  /** Sequences running. */
  readonly running: Int32Array;
  /** Sequences waiting. */
  readonly waiting: Int32Array;
  /** Most sequences it runs at once. */
  readonly maxBatch: Int32Array;
  /** Time of a step without attention at batch 1, ms; NaN while unknown. */
  readonly stepMs: Float64Array;
  /** Time that each further sequence of the batch adds, ms; NaN while unknown. */
  readonly sequenceMs: Float64Array;
  /** Time of attention for each thousand tokens of context, ms; NaN while unknown. */
  readonly attentionMs: Float64Array;
}

/** Sequences of the cluster that have KV, as struct of arrays. */
export interface ClusterSequencesView {
  /** Sequences. */
  readonly length: number;
  /** Index of the home among the members. */
  readonly home: Int32Array;
  /** Tokens. */
  readonly tokens: Int32Array;
  /** Segments at its home. */
  readonly localSegments: Int32Array;
  /** 1 where an operator pinned it: it must not be moved. */
  readonly pinned: Uint8Array;
  /** Segments of sequence s on member m: element `s * members.length + m`; the home's own included. */
  readonly segmentsOn: Int32Array;
}

/** What is known of the cluster, maybe a heartbeat old. */
export interface ClusterView {
  /** Members. */
  readonly members: MembersView;
  /** Sequences; empty where only the directory is known. */
  readonly sequences: ClusterSequencesView;
  /** Index of the member that asks; -1 for the gManager. */
  readonly self: number;
  /** Tokens of one segment. */
  readonly segmentTokens: number;
}

/** A sequence that wants to borrow. */
export interface PlacementView {
  /** Segments wanted; all of them, or it gets nothing. */
  readonly segments: number;
  /** Tokens known. */
  readonly tokens: number;
  /** Most tokens it will have. */
  readonly maxTokens: number;
  /** Segments that stay at home. */
  readonly localSegments: number;
}

/** Borrowed or local segments that may be given up when memory is called back. */
export interface EvictionView {
  /** Segments to give back. */
  readonly segments: number;
  /** Candidates. */
  readonly length: number;
  /** Tokens of the candidate's sequence. */
  readonly tokens: Int32Array;
  /** Segment index in its sequence. */
  readonly segment: Int32Array;
  /** Sequences that share it. */
  readonly shared: Int32Array;
  /** Milliseconds since it came there. */
  readonly ageMs: Float64Array;
}

/** A memory policy: who lends what to whom. Every hook is optional; without one the host's default acts. */
export interface MemoryPlugin<Config = unknown, State = unknown> extends PluginBase {
  /** Kind of plugin. */
  readonly kind: "memory";
  /** Makes the state that every hook receives. */
  create(context: PluginContext<Config>): State;
  /**
   * Says where the segments go that a sequence wants to borrow: calls `out.put(member, segments)` in the order in which the
   * sequence's lowest segments fill them. The sum must be `request.segments`, or nothing.
   */
  place?(state: State, request: PlacementView, cluster: ClusterView, out: PlacementDraft): void;
  /** Proposes moves; called periodically with everything the gManager knows. */
  move?(state: State, cluster: ClusterView, out: MoveDraft): void;
  /** Writes one finite number per candidate: lower is given up first. */
  evict?(state: State, view: EvictionView, out: Float64Array): void;
  /** Frees what `create` acquired. */
  dispose?(state: State): void;
}

/** What `place` writes. */
export interface PlacementDraft {
  /** Puts the next segments on a usable member that is not the asking one. */
  put(member: number, segments: number): void;
}

/** What `move` writes. */
export interface MoveDraft {
  /** Moves the lowest `segments` segments of a sequence that lie on `from` to `to`. */
  move(
    sequence: number,
    options: {
      readonly from: number;
      readonly to: number;
      readonly segments: number;
      /** Tokens a second gained over the pair. */
      readonly predictedGain?: number;
    },
  ): void;
}

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
  /**
   * Writes one finite number per member, lower first: where a request runs that came in at `members.name[self]`. Members
   * that cannot run it are not looked at. By default the one with the fewest sequences for its size, the asked one first.
   */
  score?(state: State, request: RequestView, cluster: ClusterView, out: Float64Array): void;
  /** Sees events after each step. */
  observe?(state: State, events: readonly EngineEvent[]): void;
  /** Frees what `create` acquired. */
  dispose?(state: State): void;
}
