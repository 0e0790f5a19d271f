/**
 * Where the KV of a sequence lies, in words for operators and policies.
 *
 * @module
 */
import type { Sequence } from "../sequence.ts";
import type { PlacedRange, PlacedSequence } from "./cluster_memory.ts";

/** Lays out where a running sequence's KV lies: one range for each run of segments at one member. */
export function placementOf(sequence: Sequence, pinned: boolean): PlacedSequence {
  const { segmentTokens, blockTokens, computed } = sequence;
  const ranges: { -readonly [K in keyof PlacedRange]: PlacedRange[K] }[] = [];
  for (let segment = 0; segment * segmentTokens < computed; segment++) {
    const place = sequence.places.at(segment);
    if (place?.kind === "lost" || place?.kind === "mending") continue;
    const creditor = place?.slot.creditor.name;
    const tokens = Math.min(segmentTokens, computed - segment * segmentTokens);
    const blocks = Math.ceil(tokens / blockTokens);
    const sinceMs = sequence.places.sinceMs(segment);
    const last = ranges.at(-1);
    if (last !== undefined && last.to === segment && last.creditor === creditor) {
      last.to++;
      last.blocks += blocks;
      last.sinceMs = Math.min(last.sinceMs, sinceMs);
    } else {
      ranges.push({ from: segment, to: segment + 1, ...(creditor !== undefined && { creditor }), blocks, sinceMs });
    }
  }
  return { sequence: sequence.id, length: sequence.length, running: sequence.status === "running", ranges, pinned };
}
