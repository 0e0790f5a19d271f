/**
 * The scheduler's side of the plugin door.
 *
 * @module
 */
import type {
  Admission,
  ClusterView,
  EngineEvent,
  InstanceView,
  QueueView,
  RequestView,
  StepView,
} from "../plugins/types.ts";

/** A scheduling policy whose answers have been checked. None of the methods throws. */
export interface PolicyHost {
  /** Name of the policy. */
  readonly name: string;
  /** Answers discarded so far, by hook. */
  readonly fallbacks: Readonly<Record<string, number>>;
  /** Accepts or rejects a request. */
  admit(request: RequestView, instance: InstanceView): Admission;
  /** Indices of `queue` in rank order: a permutation of 0 to `queue.length - 1`. */
  rank(queue: QueueView): Int32Array;
  /**
   * Tokens for each sequence of the step and the sequences to preempt, by handle. Null when the policy has no plan of
   * its own or its answer was refused: the scheduler's own plan is used.
   */
  plan(step: StepView): PolicyPlan | null;
  /**
   * Members that may run a request, best first: indices of `candidates`, all of them. Never throws.
   *
   * @param candidates Indices of members in the view that can run it.
   */
  route(request: RequestView, cluster: ClusterView, candidates: readonly number[]): readonly number[];
  /** Hands on what happened since the last call. */
  observe(events: readonly EngineEvent[]): void;
}

/** Answer of {@linkcode PolicyHost.plan}. */
export interface PolicyPlan {
  /** Tokens to compute, by handle. */
  readonly tokens: ReadonlyMap<number, number>;
  /** Handles to preempt. */
  readonly preempt: readonly number[];
}
