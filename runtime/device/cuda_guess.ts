/**
 * A step that was begun before it was asked for, with the tokens the GPU chose for it, and whether a batch is that step.
 *
 * @module
 */
import { logitRows } from "./batch_check.ts";
import { isDecode } from "./cuda_buckets.ts";
import { CUDA_BLOCK_TOKENS } from "./cuda_tables.ts";
import type { FollowingStep, StepSequence } from "./device.ts";

/** One sequence of a step that was begun ahead. */
export interface GuessedSequence {
  /** What was begun. */
  readonly sequence: StepSequence;
  /** Its one token, where the GPU chose it; undefined when it could not tell. */
  readonly chosen?: { readonly token: number | undefined };
}

/** The block of a sequence that holds a position. */
export function blockAt({ blocks }: Pick<StepSequence, "blocks">, position: number): number {
  return blocks[Math.floor(position / CUDA_BLOCK_TOKENS)];
}

/** The step behind a step of single tokens when all its sequences go on; undefined behind any other step. */
export function stepBehind(batch: readonly StepSequence[]): FollowingStep | undefined {
  if (!isDecode(batch)) return undefined;
  return {
    batch: batch.map(({ position, blocks }) => ({ tokens: [0], position: position + 1, blocks, logits: "last" })),
    sources: batch.map((_, index) => index),
  };
}

/**
 * Whether a step can be begun behind `batch`: every token that is not known is chosen by rules the GPU knows, from a row of
 * logits that there is, and every sequence has blocks for its tokens.
 */
export function canFollow(batch: readonly StepSequence[], { batch: behind, sources }: FollowingStep): boolean {
  return behind.length > 0 && behind.every(({ tokens, position, blocks, absent = [] }, index) => {
    if (tokens.length === 0 || absent.length > 0) return false;
    if (blocks.length * CUDA_BLOCK_TOKENS < position + tokens.length) return false;
    const source = sources[index];
    if (source === undefined) return true;
    const { logits, next } = batch[source];
    return tokens.length === 1 && logits !== "none" && next !== undefined && next.mode.kind !== "host";
  });
}

/** Number of the last row of logits of each sequence of a batch; of no use where a sequence has none. */
export function lastRows(batch: readonly StepSequence[]): number[] {
  let rows = 0;
  return batch.map((sequence) => (rows += logitRows(sequence)) - 1);
}

/**
 * For each row of logits of a batch the row of the guessed step that is it, ascending; undefined when a sequence is not among
 * the guessed ones. Some of these may be left over: they have ended.
 */
export function matchGuess(
  batch: readonly StepSequence[],
  guess: readonly GuessedSequence[],
): number[] | undefined {
  const rows: number[] = [];
  let next = 0;
  let row = 0;
  for (const sequence of batch) {
    while (next < guess.length && !isGuessed(sequence, guess[next])) row += logitRows(guess[next++].sequence);
    if (next === guess.length) return undefined;
    for (let count = logitRows(guess[next++].sequence); count > 0; count--) rows.push(row++);
  }
  return rows;
}

/** Every block that a step writes to. */
export function writtenBlocks(batch: readonly StepSequence[]): Set<number> {
  const written = new Set<number>();
  for (const { tokens, position, blocks } of batch) {
    const end = (position + tokens.length) / CUDA_BLOCK_TOKENS;
    for (let i = Math.floor(position / CUDA_BLOCK_TOKENS); i < end; i++) written.add(blocks[i]);
  }
  return written;
}

function isGuessed(sequence: StepSequence, { sequence: guessed, chosen }: GuessedSequence): boolean {
  const { tokens, position, logits } = sequence;
  if (position !== guessed.position || tokens.length !== guessed.tokens.length || logits !== guessed.logits) {
    return false;
  }
  // The block that a single token is written to is one sequence's alone, and says which it is.
  if (tokens.length === 1) {
    const token = chosen === undefined ? guessed.tokens[0] : chosen.token;
    return tokens[0] === token && blockAt(sequence, position) === blockAt(guessed, position);
  }
  for (let i = 0; i < tokens.length; i++) if (tokens[i] !== guessed.tokens[i]) return false;
  const blocks = (position + tokens.length) / CUDA_BLOCK_TOKENS;
  for (let i = 0; i < blocks; i++) if (sequence.blocks[i] !== guessed.blocks[i]) return false;
  return true;
}
