/**
 * The checks every device makes before a step or attention touches memory.
 *
 * @module
 */
import {
  type AttendRange,
  type DeviceInfo,
  type KvStore,
  type NodeWork,
  SEGMENT_TOKENS,
  type SegmentRange,
  type StepSequence,
} from "./device.ts";
import type { ModelConfig } from "../model/model.ts";

/** Totals of a checked batch. */
export interface BatchSize {
  /** Tokens over all sequences. */
  readonly tokens: number;
  /** Rows of logits over all sequences. */
  readonly rows: number;
}

/** One past the largest segment number that kernels take. */
const MAX_SEGMENTS = 2 ** 31 / SEGMENT_TOKENS;

/** What block ids are checked against. */
interface BlockRange {
  /** Blocks in the pool. */
  readonly blocks: number;
  /** Tokens of one block. */
  readonly blockTokens: number;
}

/** What a list of block ids must hold. */
interface NeededBlocks {
  /** Ids at least. */
  readonly count: number;
  /** Segments whose ids may be anything. */
  readonly absent?: readonly SegmentRange[];
}

function checkBlocks(what: string, ids: ArrayLike<number>, options: { needed: NeededBlocks; pool: BlockRange }): void {
  const { needed: { count, absent = [] }, pool } = options;
  if (ids.length < count) {
    throw new RangeError(`Cannot ${what}: its tokens need ${count} blocks, got ${ids.length}`);
  }
  const segmentBlocks = SEGMENT_TOKENS / pool.blockTokens;
  let gap = 0;
  for (let i = 0; i < count; i++) {
    if (gap < absent.length && i >= absent[gap].from * segmentBlocks) {
      i = absent[gap++].to * segmentBlocks - 1;
      continue;
    }
    const block = ids[i];
    if (!Number.isInteger(block) || block < 0 || block >= pool.blocks) {
      throw new RangeError(`Cannot ${what}: block ids must be in 0..${pool.blocks - 1}, got ${block} at index ${i}`);
    }
  }
}

function isSegmentRange({ from, to }: SegmentRange): boolean {
  return Number.isInteger(from) && Number.isInteger(to) && from >= 0 && from < to && to < MAX_SEGMENTS;
}

function checkAbsent(what: string, { absent = [], position }: StepSequence): void {
  let end = 0;
  for (const { from, to } of absent) {
    if (!isSegmentRange({ from, to }) || from < end) {
      throw new RangeError(
        `Cannot ${what}: absent ranges must hold segments, ascend and be disjoint, got [${from}, ${to})` +
          (end > 0 ? ` after segment ${end - 1}` : ""),
      );
    }
    if (to * SEGMENT_TOKENS > position) {
      throw new RangeError(
        `Cannot ${what}: absent segments must end at or before position ${position}, got [${from}, ${to}) of ` +
          `${SEGMENT_TOKENS} tokens each`,
      );
    }
    end = to;
  }
}

/**
 * Checks that every segment of a batch is in the pool, as `step` needs it.
 *
 * @throws {RangeError} naming the sequence and its absent segments.
 */
export function checkWhole(batch: readonly StepSequence[]): void {
  for (const [index, { absent = [] }] of batch.entries()) {
    if (absent.length === 0) continue;
    throw new RangeError(
      `Cannot run sequence ${index} of the batch: a step that does not stop needs every segment in the pool, got absent ` +
        `segments [${absent[0].from}, ${absent[0].to})`,
    );
  }
}

/** Rows of logits that a sequence of the batch asks for. */
export function logitRows(sequence: StepSequence): number {
  return sequence.logits === "none" ? 0 : sequence.logits === "last" ? 1 : sequence.tokens.length;
}

/**
 * Checks a batch against the sizes of a device and a model.
 *
 * @throws {RangeError} naming the sequence and the value that is out of range.
 */
export function checkBatch(batch: readonly StepSequence[], info: DeviceInfo, config: ModelConfig): BatchSize {
  let tokens = 0;
  let rows = 0;
  for (const [index, sequence] of batch.entries()) {
    const what = `run sequence ${index} of the batch`;
    const count = sequence.tokens.length;
    if (count === 0) throw new RangeError(`Cannot ${what}: wanted at least one token, got none`);
    if (!Number.isInteger(sequence.position) || sequence.position < 0) {
      throw new RangeError(`Cannot ${what}: position must be a non-negative integer, got ${sequence.position}`);
    }
    for (let i = 0; i < count; i++) {
      const token = sequence.tokens[i];
      if (!Number.isInteger(token) || token < 0 || token >= config.vocab) {
        throw new RangeError(`Cannot ${what}: token ids must be in 0..${config.vocab - 1}, got ${token} at index ${i}`);
      }
    }
    checkAbsent(what, sequence);
    const needed = { count: Math.ceil((sequence.position + count) / info.blockTokens), absent: sequence.absent };
    checkBlocks(what, sequence.blocks, { needed, pool: info });
    tokens += count;
    rows += logitRows(sequence);
  }
  if (tokens > info.maxStepTokens) {
    throw new RangeError(`Cannot run the batch: at most ${info.maxStepTokens} tokens a step, got ${tokens}`);
  }
  if (rows > info.maxLogitRows) {
    throw new RangeError(`Cannot run the batch: at most ${info.maxLogitRows} rows of logits a step, got ${rows}`);
  }
  return { tokens, rows };
}

function checkLayer(layer: number, { layout: { layers } }: Pool): void {
  if (!Number.isInteger(layer) || layer < 0 || layer >= layers) {
    throw new RangeError(`Cannot attend: layer must be in 0..${layers - 1}, got ${layer}`);
  }
}

/** What arguments of attention are checked against. */
type Pool = Pick<KvStore, "layout" | "blocks">;

/**
 * Checks the arguments of `attend`.
 *
 * @throws {RangeError} naming the range and the value that is out of range.
 */
export function checkRanges(layer: number, ranges: readonly AttendRange[], pool: Pool): void {
  checkLayer(layer, pool);
  const { heads, headDim, blockTokens } = pool.layout;
  for (const [index, range] of ranges.entries()) {
    const what = `attend to range ${index}`;
    const width = heads * headDim;
    if (range.query.length !== width) {
      throw new RangeError(`Cannot ${what}: the query must hold ${width} values, got ${range.query.length}`);
    }
    if (!Number.isInteger(range.start) || range.start < 0 || range.start % SEGMENT_TOKENS !== 0) {
      throw new RangeError(
        `Cannot ${what}: start must be a non-negative multiple of ${SEGMENT_TOKENS}, got ${range.start}`,
      );
    }
    if (!Number.isInteger(range.length) || range.length < 0) {
      throw new RangeError(`Cannot ${what}: length must be a non-negative integer, got ${range.length}`);
    }
    const needed = { count: Math.ceil(range.length / blockTokens) };
    checkBlocks(what, range.blocks, { needed, pool: { blocks: pool.blocks, blockTokens } });
  }
}

/**
 * Checks the arguments of `attendNodes`.
 *
 * @throws {RangeError} naming the work and the value that is out of range.
 */
export function checkNodeWork(layer: number, works: readonly NodeWork[], pool: Pool): void {
  checkLayer(layer, pool);
  const { heads, headDim, blockTokens } = pool.layout;
  for (const [index, { queries, segments, blocks }] of works.entries()) {
    const what = `attend for work ${index}`;
    const width = heads * headDim;
    if (queries.length === 0 || queries.length % width !== 0) {
      throw new RangeError(
        `Cannot ${what}: queries must hold ${width} values for each token, got ${queries.length}`,
      );
    }
    if (!isSegmentRange(segments)) {
      throw new RangeError(
        `Cannot ${what}: wanted at least one segment below ${MAX_SEGMENTS}, got [${segments.from}, ${segments.to})`,
      );
    }
    const needed = { count: (segments.to - segments.from) * (SEGMENT_TOKENS / blockTokens) };
    checkBlocks(what, blocks, { needed, pool: { blocks: pool.blocks, blockTokens } });
  }
}

/**
 * Checks the id of a block.
 *
 * @throws {RangeError} when it is not one of the pool's.
 */
export function checkBlock(block: number, { blocks }: Pick<KvStore, "blocks">): void {
  if (!Number.isInteger(block) || block < 0 || block >= blocks) {
    throw new RangeError(`Cannot access a block: wanted an id in 0..${blocks - 1}, got ${block}`);
  }
}

/**
 * Checks what is to be written into a block.
 *
 * @throws {RangeError} when the block is not one of the pool's or the length is not that of a block.
 */
export function checkBlockBytes(block: number, bytes: Uint8Array, pool: Pick<KvStore, "blocks" | "blockBytes">): void {
  checkBlock(block, pool);
  if (bytes.length !== pool.blockBytes) {
    throw new RangeError(`Cannot write block ${block}: wanted ${pool.blockBytes} bytes, got ${bytes.length}`);
  }
}
