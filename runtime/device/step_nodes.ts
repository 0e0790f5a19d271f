/**
 * The nodes of the merge tree that make up a sequence with segments elsewhere.
 *
 * @module
 */
import { type SegmentNode, segmentNodes } from "../../kernels/merge_partials/spec.ts";
import { SEGMENT_TOKENS, type SegmentRange, type StepSequence } from "./device.ts";

/** A node of a sequence. */
export interface SequenceNode extends SegmentNode {
  /** Whether its keys and values are in the pool; otherwise its partial comes from elsewhere. */
  readonly local: boolean;
}

/** How to cut local ranges. */
export interface NodeOptions {
  /** Most segments of a local node, a power of two; smaller nodes spread over threads. @default {Infinity} */
  readonly mostSegments?: number;
}

function localNodes(range: SegmentRange, mostSegments: number): SequenceNode[] {
  return segmentNodes(range.from, range.to).flatMap(({ first, segments }) => {
    const size = Math.min(segments, mostSegments);
    return Array.from({ length: segments / size }, (_, i) => ({
      first: first + i * size,
      segments: size,
      local: true,
    }));
  });
}

/** The nodes of a checked sequence up to its last new token, ascending; none when no segment is absent. */
export function sequenceNodes(sequence: StepSequence, options: NodeOptions = {}): readonly SequenceNode[] {
  const { mostSegments = Infinity } = options;
  const absent = sequence.absent ?? [];
  if (absent.length === 0) return [];
  const nodes: SequenceNode[] = [];
  let next = 0;
  for (const { from, to } of absent) {
    nodes.push(...localNodes({ from: next, to: from }, mostSegments));
    nodes.push(...segmentNodes(from, to).map((node) => ({ ...node, local: false })));
    next = to;
  }
  const end = Math.ceil((sequence.position + sequence.tokens.length) / SEGMENT_TOKENS);
  nodes.push(...localNodes({ from: next, to: end }, mostSegments));
  return nodes;
}
