/**
 * The contract between the engine and whatever computes: the TypeScript reference, WASM on CPU cores, CUDA next.
 *
 * A device owns the weights and a pool of KV blocks. It knows block ids, never sequences: which block belongs to whom
 * is the scheduler's business. Calls are synchronous and come from one thread.
 *
 * @module
 */
import type { ActivationType, KvType } from "../../kernels/dtype.ts";
import { type AttentionPartial, SEGMENT_TOKENS, type SegmentNode } from "../../kernels/merge_partials/spec.ts";
import type { SampleMode } from "../../kernels/sample/spec.ts";
import type { ModelConfig } from "../model/model.ts";

export { SEGMENT_TOKENS };

/** Consecutive whole segments of a sequence: [from, to), counted in segments of {@linkcode SEGMENT_TOKENS} tokens. */
export interface SegmentRange {
  /** First segment. */
  readonly from: number;
  /** One past the last segment. */
  readonly to: number;
}

/** Sizes chosen when a device is opened. */
export interface DeviceOptions {
  /** Tokens of one KV block; divides {@linkcode SEGMENT_TOKENS}. @default {16} */
  readonly blockTokens?: number;
  /** KV blocks in the pool. */
  readonly blocks: number;
  /** Element type of the KV pool. @default {"f16"} */
  readonly kvType?: KvType;
  /** Input type of quantised matrix products. @default {"i8"} */
  readonly activations?: ActivationType;
  /** Most tokens in one step, over all sequences. @default {512} */
  readonly maxStepTokens?: number;
  /** Most rows of logits in one step. @default {64} */
  readonly maxLogitRows?: number;
}

/** How a token is going to be chosen from the logits of a step. */
export interface NextToken {
  /** How; `host` where a device cannot know. */
  readonly mode: SampleMode;
  /** Tokens of the output before it. */
  readonly accepted: number;
}

/** The part of one sequence that a step computes. */
export interface StepSequence {
  /** New tokens, at least one. */
  readonly tokens: ArrayLike<number>;
  /** Absolute position of `tokens[0]`, equal to the KV tokens already in the sequence's blocks. */
  readonly position: number;
  /** Block ids that cover positions 0 to `position + tokens.length - 1`, in order; those of absent segments are not read. */
  readonly blocks: ArrayLike<number>;
  /**
   * Whole segments that lie entirely below `position` and whose KV is not in this pool, ascending and disjoint. Only
   * {@linkcode Device.begin} takes them: whoever runs the step brings their partials.
   *
   * @default {[]}
   */
  readonly absent?: readonly SegmentRange[];
  /**
   * How the token after the last one is going to be chosen, so that a device may begin the next step before it is asked
   * for. No more than a hint: whoever runs the step chooses.
   *
   * @default {nothing is known}
   */
  readonly next?: NextToken;
  /** Rows of logits wanted: none (a chunk that is not the last), the last token's, or one for every token. */
  readonly logits: "none" | "last" | "all";
}

/** The step that probably comes after another one. */
export interface FollowingStep {
  /** Its sequences, all of whose segments are in the pool; what one token stands for that is not known yet says nothing. */
  readonly batch: readonly StepSequence[];
  /**
   * For each of them, the sequence of the step in front whose chosen token is its one token; undefined where its tokens are
   * known.
   */
  readonly sources: readonly (number | undefined)[];
}

/** What a device may make use of. */
export interface StepHints {
  /**
   * What it may begin before it is asked for: blocks of these sequences may be written to from now on. Nothing of it
   * counts before a step that is asked for is this one, or some sequences of it in the same order.
   *
   * @default {a step of single tokens is followed by the same sequences, one token on}
   */
  readonly following?: FollowingStep;
}

/** Logits and the inputs a sampler needs, one row per wanted token, in the order of the batch. Valid until the next step. */
export interface StepOutput {
  /** Rows of logits. */
  readonly rows: number;
  /** Logits of row `row`, [vocab], natural scale. A view of device-visible memory: read it, do not write it. */
  logits(row: number): Float32Array;
  /** ln Σ exp(logit) of row `row`. */
  logSumExp(row: number): number;
  /** The {@linkcode TOP_CANDIDATES} largest logits of row `row`, descending, ties by lower id first. */
  top(row: number): { readonly ids: Int32Array; readonly logits: Float32Array };
}

/** Candidates a device reports per row (fewer when the vocabulary is smaller). */
export const TOP_CANDIDATES = 64;

/** Where a step that was begun stands. */
export type StepStop =
  /** The queries of a layer are there to be sent; only in steps with absent segments. */
  | { readonly kind: "queries"; readonly layer: number }
  /** Nothing more can be computed in this layer before every absent segment's partial has been put. */
  | { readonly kind: "partials"; readonly layer: number }
  /** The budget is used up; others may have a turn. */
  | { readonly kind: "slice" }
  /** The step is complete. */
  | { readonly kind: "done"; readonly output: StepOutput };

/**
 * A step that stops, so that queries can be sent elsewhere, partials that were computed elsewhere can be merged in, and
 * others get a turn on the thread. Between two calls the device may attend, read and write blocks that are not the
 * step's. Results have the same bits as those of {@linkcode Device.step} with all segments in the pool.
 */
export interface DeviceStep {
  /**
   * Computes on to the next stop. For each layer of a step with absent segments: `queries`, then (keys, values and
   * attention to what is in the pool) `partials`, then on. `slice` may come in between, anywhere.
   *
   * @param budget About how many multiply-accumulates may pass before a `slice`. Default: no slices.
   * @throws {Error} when a partial is missing at a `partials` stop, naming sequence and node; put it and call again.
   */
  next(budget?: number): StepStop;
  /** Queries of sequence `index` of the batch in the current layer, [tokens, heads * headDim], rotated, not scaled. A view, valid until the next layer. */
  queries(index: number): Float32Array;
  /**
   * Brings the partial of one node of {@linkcode segmentNodes} of one absent range of sequence `index`, from the layer's
   * `queries` stop on; o [tokens, heads * headDim], lse [tokens, heads]. Copied. Putting a node again replaces it.
   *
   * @throws {RangeError} when the node is not one of the absent ranges' or a length is wrong.
   */
  put(index: number, node: SegmentNode, partial: AttentionPartial): void;
  /** Gives the step up; the pool keeps what was written, nothing of it counts. Idempotent, also after `done`. */
  abandon(): void;
}

/** Queries of one sequence for consecutive whole segments in the pool, all of which lie before each query's position. */
export interface NodeWork {
  /** Queries, [tokens, heads * headDim], rotated, not scaled. */
  readonly queries: Float32Array;
  /** Segments attended to, at least one. */
  readonly segments: SegmentRange;
  /** Ids of the blocks that hold them, in order. */
  readonly blocks: ArrayLike<number>;
}

/** A partial over one node of the merge tree. */
export interface NodePartial extends AttentionPartial {
  /** The node. */
  readonly node: SegmentNode;
}

/** What a pool of blocks is and holds. */
export interface KvLayout {
  /** Layers. */
  readonly layers: number;
  /** Query heads; a multiple of `kvHeads`. */
  readonly heads: number;
  /** Key and value heads. */
  readonly kvHeads: number;
  /** Width of a head. */
  readonly headDim: number;
  /** Tokens of one block; divides {@linkcode SEGMENT_TOKENS}. */
  readonly blockTokens: number;
  /** Element type. */
  readonly kvType: KvType;
}

/** A pool of KV blocks with the attention kernel: all that a holder without weights needs. */
export interface KvStore extends Disposable {
  /** Shape of its blocks. */
  readonly layout: KvLayout;
  /** Blocks in the pool. */
  readonly blocks: number;
  /** Bytes of one block over all layers, keys and values. */
  readonly blockBytes: number;
  /**
   * Tokens of each of the blocks that {@linkcode readBlock} gives, one after the other; divides `layout.blockTokens`.
   *
   * @default {layout.blockTokens: the bytes are one block}
   */
  readonly storedTokens?: number;
  /**
   * Partials of one layer: for each work, one for each of {@linkcode segmentNodes} of its segments, in order; o [tokens,
   * heads * headDim], lse [tokens, heads]. Same bits as the same nodes inside a step. Views, valid until the next call.
   *
   * @throws {RangeError} when the layer, a block id or a length is out of range.
   */
  attendNodes(layer: number, work: readonly NodeWork[]): readonly (readonly NodePartial[])[];
  /** Copies the stored bytes of a block (all layers) out of the pool. */
  readBlock(block: number): Uint8Array;
  /** Writes bytes that {@linkcode readBlock} of a pool of the same layout and stored blocks returned. @throws {RangeError} */
  writeBlock(block: number, bytes: Uint8Array): void;
}

/** A range of consecutive blocks of one sequence, attended to as one partial. */
export interface AttendRange {
  /** Query, [heads * headDim], already rotated, not scaled. */
  readonly query: Float32Array;
  /** Absolute position of the first KV token in `blocks[0]`; a multiple of {@linkcode SEGMENT_TOKENS}. */
  readonly start: number;
  /** KV tokens attended to, from `start` on; 0 gives o = 0 and lse = -Infinity. */
  readonly length: number;
  /** Block ids that hold them. */
  readonly blocks: ArrayLike<number>;
}

/** What a device is and holds. */
export interface DeviceInfo {
  /** Implementation. */
  readonly kind: "reference" | "wasm" | "cuda";
  /** Number of the GPU. @default {it is none} */
  readonly ordinal?: number;
  /** Whether a GPU gives a sequence the same bits whatever else is in a step. @default {false} */
  readonly deterministic?: boolean;
  /** One line for people, for example `wasm, 2 threads, relaxed SIMD`. */
  readonly description: string;
  /** Tokens of one block. */
  readonly blockTokens: number;
  /** Blocks in the pool. */
  readonly blocks: number;
  /** Bytes of one block in the device's memory, over all layers, keys and values; not those that `readBlock` gives. */
  readonly blockBytes: number;
  /** Bytes the weights take on the device. */
  readonly weightBytes: number;
  /** Element type of the pool. */
  readonly kvType: KvType;
  /** Input type of quantised matrix products. */
  readonly activations: ActivationType;
  /** Most tokens in one step. */
  readonly maxStepTokens: number;
  /** Most rows of logits in one step. */
  readonly maxLogitRows: number;
}

/**
 * Runs a model. Results for a sequence do not depend on the other sequences of the batch, on how its tokens were cut
 * into steps, or on the number of threads: same bits.
 */
export interface Device extends KvStore {
  /** What it is. */
  readonly info: DeviceInfo;
  /** The model it was opened with. */
  readonly config: ModelConfig;
  /**
   * Computes one step: embeds the tokens, writes their keys and values into the given blocks, returns the wanted logits.
   *
   * @throws {RangeError} when a token, a block id, the token count or the row count is out of range, or a segment is
   * absent; nothing is written.
   */
  step(batch: readonly StepSequence[], hints?: StepHints): StepOutput;
  /**
   * Begins a step that stops, see {@linkcode DeviceStep}. One step at a time.
   *
   * @throws {RangeError} as {@linkcode step}, and when an absent range is empty, out of order or not below the position.
   * @throws {Error} when another step was begun and is neither done nor abandoned.
   */
  begin(batch: readonly StepSequence[], hints?: StepHints): DeviceStep;
  /**
   * Partial attention of one layer over ranges of the pool (DistAttention equations 2 and 3; DESIGN contract): within
   * a range, segments at absolute positions are merged in the fixed tree. A range that is one aligned node of that tree
   * gives a partial that merges to the same bits wherever it was computed. The result's rows are [ranges, heads].
   *
   * @throws {RangeError} when the layer, a block id or a length is out of range.
   */
  attend(layer: number, ranges: readonly AttendRange[]): AttentionPartial;
}
