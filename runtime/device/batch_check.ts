/**
 * The checks every device makes before a step touches memory.
 *
 * @module
 */
import { type AttendRange, type DeviceInfo, SEGMENT_TOKENS, type StepSequence } from "./device.ts";
import type { ModelConfig } from "../model/model.ts";

/** Totals of a checked batch. */
export interface BatchSize {
  /** Tokens over all sequences. */
  readonly tokens: number;
  /** Rows of logits over all sequences. */
  readonly rows: number;
}

function checkBlocks(what: string, blocks: ArrayLike<number>, needed: number, info: DeviceInfo): void {
  if (blocks.length < needed) {
    throw new RangeError(`Cannot ${what}: its tokens need ${needed} blocks, got ${blocks.length}`);
  }
  for (let i = 0; i < needed; i++) {
    const block = blocks[i];
    if (!Number.isInteger(block) || block < 0 || block >= info.blocks) {
      throw new RangeError(`Cannot ${what}: block ids must be in 0..${info.blocks - 1}, got ${block} at index ${i}`);
    }
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
    checkBlocks(what, sequence.blocks, Math.ceil((sequence.position + count) / info.blockTokens), info);
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

/**
 * Checks the arguments of `attend`.
 *
 * @throws {RangeError} naming the range and the value that is out of range.
 */
export function checkRanges(
  layer: number,
  ranges: readonly AttendRange[],
  options: { readonly info: DeviceInfo; readonly config: ModelConfig },
): void {
  const { info, config } = options;
  if (!Number.isInteger(layer) || layer < 0 || layer >= config.layers) {
    throw new RangeError(`Cannot attend: layer must be in 0..${config.layers - 1}, got ${layer}`);
  }
  for (const [index, range] of ranges.entries()) {
    const what = `attend to range ${index}`;
    const width = config.heads * config.headDim;
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
    checkBlocks(what, range.blocks, Math.ceil(range.length / info.blockTokens), info);
  }
}
