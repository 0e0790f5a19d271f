/**
 * The merge tree's nodes over a run of segments, as every member cuts them.
 *
 * @module
 */

/** A node of the merge tree: segments `first` to `first + segments - 1`; `segments` is a power of two that divides `first`. */
export interface WireNode {
  /** Its first segment. */
  readonly first: number;
  /** Segments it covers. */
  readonly segments: number;
}

/** Segments of the node that begins at `from` when segments [from, to) are cut into the fewest whole nodes. */
export function nodeSegments(from: number, to: number): number {
  let segments = 1;
  while (from % (2 * segments) === 0 && from + 2 * segments <= to) segments *= 2;
  return segments;
}

/** The fewest whole nodes that make up segments [from, to), in order. */
export function cutNodes(from: number, to: number): WireNode[] {
  const nodes: WireNode[] = [];
  for (let first = from; first < to;) {
    const segments = nodeSegments(first, to);
    nodes.push({ first, segments });
    first += segments;
  }
  return nodes;
}
