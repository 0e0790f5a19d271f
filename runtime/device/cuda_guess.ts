/**
 * A step that was begun before it was asked for, with the tokens the GPU chose for it, and whether a batch is that step.
 *
 * @module
 */
import { CUDA_BLOCK_TOKENS } from "./cuda_tables.ts";
import type { StepSequence } from "./device.ts";

/** One row of a step that was begun ahead. */
export interface GuessedRow {
  /** Position of its token. */
  readonly position: number;
  /** The block that position lies in: of one sequence alone, for it is written to. */
  readonly block: number;
  /** The token; undefined when the GPU could not tell. */
  readonly token: number | undefined;
}

/** The block of a sequence that holds a position. */
export function blockAt({ blocks }: Pick<StepSequence, "blocks">, position: number): number {
  return blocks[Math.floor(position / CUDA_BLOCK_TOKENS)];
}

/**
 * Whether the step after a decode step can be begun ahead: every row is chosen by rules the GPU knows, and every sequence
 * has a block for the token after it.
 */
export function canGuess(batch: readonly StepSequence[]): boolean {
  return batch.every(({ next, position, blocks, logits }) =>
    logits !== "none" && next !== undefined && next.mode.kind !== "host" &&
    blocks.length * CUDA_BLOCK_TOKENS > position + 1
  );
}

/** The step behind a decode step, its tokens not known yet. */
export function stepBehind(batch: readonly StepSequence[]): StepSequence[] {
  return batch.map(({ position, blocks }) => ({ tokens: [0], position: position + 1, blocks, logits: "last" }));
}

/**
 * For each sequence of a decode batch the guessed row that is it, ascending; undefined when one is not among them. Some
 * guessed rows may be left over: their sequences have ended.
 */
export function matchGuess(batch: readonly StepSequence[], guess: readonly GuessedRow[]): number[] | undefined {
  const rows: number[] = [];
  let row = 0;
  for (const sequence of batch) {
    const { position, tokens, logits } = sequence;
    if (logits === "none") return undefined;
    while (
      row < guess.length && !isRow(guess[row], { position, token: tokens[0], block: blockAt(sequence, position) })
    ) {
      row++;
    }
    if (row === guess.length) return undefined;
    rows.push(row++);
  }
  return rows;
}

function isRow(row: GuessedRow, { position, token, block }: GuessedRow): boolean {
  return row.position === position && row.token === token && row.block === block;
}
