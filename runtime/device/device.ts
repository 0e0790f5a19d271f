/**
 * The contract between the engine and whatever computes: the TypeScript reference, WASM on CPU cores, CUDA next.
 *
 * A device owns the weights and a pool of KV blocks. It knows block ids, never sequences: which block belongs to whom
 * is the scheduler's business. Calls are synchronous and come from one thread.
 *
 * @module
 */
import type { ActivationType, KvType } from "../../kernels/dtype.ts";
import { type AttentionPartial, SEGMENT_TOKENS } from "../../kernels/merge_partials/spec.ts";
import type { ModelConfig } from "../model/model.ts";

export { SEGMENT_TOKENS };

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

/** The part of one sequence that a step computes. */
export interface StepSequence {
  /** New tokens, at least one. */
  readonly tokens: ArrayLike<number>;
  /** Absolute position of `tokens[0]`, equal to the KV tokens already in the sequence's blocks. */
  readonly position: number;
  /** Block ids that cover positions 0 to `position + tokens.length - 1`, in order. */
  readonly blocks: ArrayLike<number>;
  /** Rows of logits wanted: none (a chunk that is not the last), the last token's, or one for every token. */
  readonly logits: "none" | "last" | "all";
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
  /** One line for people, for example `wasm, 2 threads, relaxed SIMD`. */
  readonly description: string;
  /** Tokens of one block. */
  readonly blockTokens: number;
  /** Blocks in the pool. */
  readonly blocks: number;
  /** Bytes of one block over all layers, keys and values. */
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
export interface Device extends Disposable {
  /** What it is. */
  readonly info: DeviceInfo;
  /** The model it was opened with. */
  readonly config: ModelConfig;
  /**
   * Computes one step: embeds the tokens, writes their keys and values into the given blocks, returns the wanted logits.
   *
   * @throws {RangeError} when a token, a block id, the token count or the row count is out of range; nothing is written.
   */
  step(batch: readonly StepSequence[]): StepOutput;
  /**
   * Partial attention of one layer over ranges of the pool (DistAttention equations 2 and 3; DESIGN contract): within
   * a range, segments at absolute positions are merged in the fixed tree. A range that is one aligned node of that tree
   * gives a partial that merges to the same bits wherever it was computed. The result's rows are [ranges, heads].
   *
   * @throws {RangeError} when the layer, a block id or a length is out of range.
   */
  attend(layer: number, ranges: readonly AttendRange[]): AttentionPartial;
  /** Copies the stored bytes of a block (all layers, device layout) out of the pool. */
  readBlock(block: number): Uint8Array;
  /** Writes bytes that {@linkcode readBlock} of a device of the same layout returned. @throws {RangeError} */
  writeBlock(block: number, bytes: Uint8Array): void;
}
