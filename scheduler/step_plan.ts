/**
 * What one step computes.
 *
 * @module
 */
import type { ForeseenSequence } from "./foresight.ts";
import type { Chunk, Sequence } from "./sequence.ts";

/** The part of one sequence that a step computes. */
export interface PlannedSequence extends Chunk {
  /** The sequence; it runs and its blocks cover the tokens, of which there is at least one. */
  readonly sequence: Sequence;
}

/** A step that keeps every limit. */
export interface CheckedPlan {
  /** Decodes and prefill chunks; empty when nothing can run. */
  readonly entries: readonly PlannedSequence[];
  /** What the step behind it probably computes; empty when that is not known. */
  readonly following: readonly ForeseenSequence[];
}

/** Most that one step may hold. */
export interface StepLimits {
  /** Tokens over all sequences. */
  readonly tokens: number;
  /** Rows of logits over all sequences. */
  readonly rows: number;
}

/** Rows of logits an entry yields. */
export function logitRows(entry: PlannedSequence): number {
  switch (entry.logits) {
    case "none":
      return 0;
    case "last":
      return 1;
    case "all":
      return entry.tokens;
    default:
      return entry.logits satisfies never;
  }
}

/** Collects a {@linkcode CheckedPlan}: what does not fit the limits is cut. */
export class PlanDraft implements CheckedPlan {
  /** See {@linkcode CheckedPlan.following}. */
  following: readonly ForeseenSequence[] = [];
  readonly #entries: PlannedSequence[] = [];
  #tokensLeft: number;
  #rowsLeft: number;

  /** Starts empty. */
  constructor(limits: StepLimits) {
    this.#tokensLeft = limits.tokens;
    this.#rowsLeft = limits.rows;
  }

  /** Parts taken so far. */
  get entries(): readonly PlannedSequence[] {
    return this.#entries;
  }

  /** Tokens that still fit. */
  get tokensLeft(): number {
    return this.#tokensLeft;
  }

  /** Takes up to `tokens` tokens of a running sequence, as many as fit. */
  take(sequence: Sequence, tokens: number): void {
    const limits = { tokens: Math.min(tokens, this.#tokensLeft), rows: this.#rowsLeft };
    const chunk = sequence.nextChunk(limits);
    if (chunk.tokens < 1) return;
    const entry = { sequence, ...chunk };
    this.#entries.push(entry);
    this.#tokensLeft -= entry.tokens;
    this.#rowsLeft -= logitRows(entry);
  }
}
