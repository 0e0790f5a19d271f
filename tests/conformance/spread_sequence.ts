/**
 * A sequence whose segments lie in several pools, and a step that fetches their partials, as instances do over a network.
 *
 * @module
 */
import {
  type Device,
  type DeviceStep,
  type KvStore,
  type NodePartial,
  type NodeWork,
  SEGMENT_TOKENS,
  type SegmentRange,
  type StepOutput,
  type StepSequence,
  type StepStop,
} from "../../runtime/device/device.ts";

/** Consecutive segments in another pool. */
export interface Share extends SegmentRange {
  /** The pool. */
  readonly store: KvStore;
  /** Blocks of the segments there, in order. */
  readonly blocks: readonly number[];
}

/** A sequence of a step and where its absent segments are. */
export interface SpreadSequence extends StepSequence {
  /** Shares that make up its absent ranges. */
  readonly shares: readonly Share[];
}

/** Copies the blocks of segments of a sequence from one pool to another. */
export function copySegments(
  from: { readonly store: KvStore; readonly blocks: readonly number[] },
  share: Share,
): void {
  const segmentBlocks = SEGMENT_TOKENS / share.store.layout.blockTokens;
  for (let i = 0; i < (share.to - share.from) * segmentBlocks; i++) {
    share.store.writeBlock(share.blocks[i], from.store.readBlock(from.blocks[share.from * segmentBlocks + i]));
  }
}

/** What the store of a share computes for the queries of its sequence; the copies outlive the store's next call. */
export function sharePartials(
  { store, from, to, blocks }: Share,
  options: { readonly layer: number; readonly queries: Float32Array },
): NodePartial[] {
  const work: NodeWork = { queries: options.queries.slice(), segments: { from, to }, blocks };
  return store.attendNodes(options.layer, [work])[0].map(({ node, o, lse }) => ({
    node,
    o: o.slice(),
    lse: lse.slice(),
  }));
}

/** How a spread step goes. */
export interface SpreadOptions {
  /** Budget of each slice. @default {no slices} */
  readonly budget?: () => number | undefined;
  /** Called at every stop. */
  readonly onStop?: (stop: StepStop, step: DeviceStep) => void;
  /** Whether partials are put only at the `partials` stop, and in reverse. @default {false} */
  readonly late?: boolean;
}

/** Runs a step whose sequences are spread: at every layer, queries go out and partials come back. */
export function runSpread(device: Device, batch: readonly SpreadSequence[], options: SpreadOptions = {}): StepOutput {
  const step = device.begin(batch);
  let waiting: (() => void)[] = [];
  for (;;) {
    const stop = step.next(options.budget?.());
    options.onStop?.(stop, step);
    switch (stop.kind) {
      case "queries":
        waiting = batch.flatMap(({ shares }, index) =>
          shares.flatMap((share) => {
            const partials = sharePartials(share, { layer: stop.layer, queries: step.queries(index) });
            return partials.map(({ node, ...partial }) => () => step.put(index, node, partial));
          })
        );
        if (options.late === true) waiting.reverse();
        else waiting.splice(0).forEach((put) => put());
        break;
      case "partials":
        waiting.splice(0).forEach((put) => put());
        break;
      case "slice":
        break;
      case "done":
        return stop.output;
    }
  }
}
