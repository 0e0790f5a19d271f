/**
 * Sizes of `attend_decode.cu` and of its workspace.
 *
 * @module
 */
import { PoolLayout } from "../kv_copy/pool_layout.ts";
import type { AttendPlainShape } from "./attend_plain_cuda.ts";

/** Most query heads that may share a KV head. */
export const MAX_DECODE_GROUP = 16;
/** Most sequences or nodes of one plan: its numbers lie in shared memory. */
export const MAX_DECODE_JOBS = 4000;

const MAX_HEAD_DIM = 256;
const SUBTILE_DIMS = 64;
const CONSUMER_WARPS = 4;
const DESCRIPTORS = 4;
const DESCRIPTOR_BYTES = 32;
const BARRIER_BYTES = 8;
/** Scores of one page and 8 heads. */
const SCORES_BYTES = 8 * 64 * 4;
/** Weights of merges. */
const WEIGHTS_BYTES = 2048;
const ENTRY_BYTES = 48;
/** Nodes of split jobs, times KV heads, that there are slots for, in CTAs. */
const SLOTS_PER_CTA = 24;
const LINE_BYTES = 256;

/** Offsets in the workspace, bytes. */
export interface DecodePlaces {
  /** Items and level, i32. */
  readonly header: number;
  /** Counter of tickets, u32. */
  readonly tickets: number;
  /** Counters of arrived nodes, u32. */
  readonly arrivals: number;
  /** Plan entries. */
  readonly entries: number;
  /** Partials of nodes, for a plan of that many jobs; all bits set where there is none, as at first. */
  slots(jobs: number): number;
}

/** Sizes for one shape on one GPU. */
export class DecodeLayout {
  /** Heads. */
  readonly shape: AttendPlainShape;
  /** Query heads that share a KV head. */
  readonly group: number;
  /** Whether each warp takes pages of its own, instead of a share of each. */
  readonly alone: boolean;
  /** Pages of a CTA's ring. */
  readonly stages: number;
  /** CTAs resident on one multiprocessor. */
  readonly ctasPerMultiprocessor: number;
  /** CTAs of a launch. */
  readonly ctas: number;
  /** Threads of a CTA. */
  readonly threads: number = (CONSUMER_WARPS + 1) * 32;
  /** Shared memory of a CTA. */
  readonly sharedBytes: number;
  /** Bytes of one partial in the workspace. */
  readonly slotBytes: number;
  /** Nodes of split jobs there is room for, those that others are merged into among them. */
  readonly slotNodes: number;
  /** Where things lie in the workspace. */
  readonly places: DecodePlaces;

  /** Computes the sizes. @throws {RangeError} when the kernel cannot take the shape. */
  constructor(shape: AttendPlainShape, multiprocessors: number) {
    const { heads, kvHeads, headDim, kvType } = shape;
    this.shape = shape;
    this.group = heads / kvHeads;
    if (!Number.isInteger(this.group) || this.group < 1 || this.group > MAX_DECODE_GROUP) {
      throw new RangeError(
        `Cannot lay out decode attention: wanted 1 to ${MAX_DECODE_GROUP} query heads a KV head, got ${heads} heads and ` +
          `${kvHeads} KV heads`,
      );
    }
    if (headDim % 2 !== 0 || headDim < 2 || headDim > MAX_HEAD_DIM) {
      throw new RangeError(
        `Cannot lay out decode attention: wanted an even head of at most ${MAX_HEAD_DIM}, got ${headDim}`,
      );
    }
    const subtiles = Math.ceil(headDim / SUBTILE_DIMS);
    const tiles = Math.ceil(this.group / 8);
    const { partBytes } = new PoolLayout({ layers: 1, kvHeads, headDim, kvType });
    const fp8 = kvType === "fp8";
    this.alone = subtiles === 1 && this.group <= 8 && !fp8;
    this.ctasPerMultiprocessor = fp8 && partBytes <= 8192 ? 2 : 1;
    this.stages = subtiles === 1 && !fp8
      ? 12
      : partBytes <= 4096
      ? 8
      : partBytes <= 16384
      ? 6
      : partBytes <= 24576
      ? 4
      : 3;
    const side = this.stages >= 4 && subtiles * tiles <= 4 ? 2 : 1;
    this.ctas = multiprocessors * this.ctasPerMultiprocessor;
    const scoresBytes = this.alone
      ? CONSUMER_WARPS * 4 * (this.group * SUBTILE_DIMS + 8) + WEIGHTS_BYTES
      : 2 * side * tiles * SCORES_BYTES;
    this.sharedBytes = this.stages * 2 * partBytes + scoresBytes +
      DESCRIPTORS * DESCRIPTOR_BYTES + 2 * BARRIER_BYTES * (this.stages + DESCRIPTORS) + 16;
    this.slotBytes = 4 * (subtiles * SUBTILE_DIMS * this.group + 32);
    this.slotNodes = Math.ceil(SLOTS_PER_CTA * this.ctas / kvHeads);
    const arrivals = 2 * LINE_BYTES;
    const entries = arrivals + aligned(4 * this.slotNodes * kvHeads);
    this.places = {
      header: 0,
      tickets: LINE_BYTES,
      arrivals,
      entries,
      slots: (jobs) => entries + aligned(ENTRY_BYTES * this.entryNodes(jobs)),
    };
  }

  /**
   * Entries of a plan of `jobs` jobs: a job that is not split has one, and every CTA reads one before it knows how many
   * there are.
   *
   * @throws {RangeError} when there are too many jobs.
   */
  entryNodes(jobs: number): number {
    if (!Number.isInteger(jobs) || jobs < 1 || jobs > MAX_DECODE_JOBS) {
      throw new RangeError(`Cannot plan attention: wanted 1 to ${MAX_DECODE_JOBS} jobs, got ${jobs}`);
    }
    return Math.max(jobs + this.slotNodes, Math.ceil(this.ctas / this.shape.kvHeads));
  }

  /** Bytes of the workspace of a plan. @throws {RangeError} as {@linkcode entryNodes}. */
  workspaceBytes(jobs: number): number {
    return this.places.slots(jobs) + this.slotNodes * this.shape.kvHeads * this.slotBytes;
  }
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / LINE_BYTES) * LINE_BYTES;
}
