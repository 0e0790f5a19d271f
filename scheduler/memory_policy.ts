/**
 * The cluster's side of the plugin door for memory policies.
 *
 * @module
 */
import type { ClusterView, EvictionView, PlacementView } from "../plugins/types.ts";

/** Segments to put on a member. */
export interface Placement {
  /** Index in the view. */
  readonly member: number;
  /** Segments. */
  readonly segments: number;
}

/** A move of segments of one sequence. */
export interface PlannedMove {
  /** Index of the sequence in the view. */
  readonly sequence: number;
  /** Index of the member that holds them now. */
  readonly from: number;
  /** Index of the member that takes them. */
  readonly to: number;
  /** Segments. */
  readonly segments: number;
  /** Tokens a second gained over the pair, as the policy predicts it; undefined when it does not say. */
  readonly predictedGain?: number;
}

/** A memory policy whose answers have been checked. None of the methods throws. */
export interface MemoryPolicyHost {
  /** Name of the policy. */
  readonly name: string;
  /** Answers discarded so far, by hook. */
  readonly fallbacks: Readonly<Record<string, number>>;
  /** Where the segments go that a sequence wants to borrow, in the order in which its segments fill them. Empty: nowhere now. */
  place(request: PlacementView, cluster: ClusterView): readonly Placement[];
  /** Moves worth making now. */
  move(cluster: ClusterView): readonly PlannedMove[];
  /** Which of the candidates are given back or moved home first when `view.segments` are called back: indices, no repetition. */
  evict(view: EvictionView): readonly number[];
}
