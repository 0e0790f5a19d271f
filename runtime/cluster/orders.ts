/**
 * Orders to move segments.
 *
 * @module
 */

/** Move the lowest segments of a sequence that lie on one member to another. */
export interface MoveOrder {
  /** Sequence, `HOME/HANDLE`. */
  readonly sequence: string;
  /** Segments. */
  readonly segments: number;
  /** Member that has them. */
  readonly from: string;
  /** Member that gets them. */
  readonly to: string;
  /** Tokens a second gained over the pair, where somebody predicted it. */
  readonly predictedGain?: number;
}

/** What became of an order. */
export interface MoveResult {
  /** Segments moved or on their way. */
  readonly moved: number;
  /** Why not all. */
  readonly problem?: string;
}

/** The home in a sequence's name, and its handle there. */
export function parseSequence(sequence: string): { readonly home: string; readonly handle: number } | undefined {
  const match = /^([a-z0-9._-]{1,64})\/(\d{1,15})$/.exec(sequence);
  return match === null ? undefined : { home: match[1], handle: Number(match[2]) };
}
