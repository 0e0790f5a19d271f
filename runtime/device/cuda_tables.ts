/**
 * The block tables of a CUDA device as the host knows them: what differs from the last step is what travels.
 *
 * @module
 */
import { SEGMENT_TOKENS, type StepSequence } from "./device.ts";

/** Tokens of a block of a CUDA pool. */
export const CUDA_BLOCK_TOKENS = 64;

/** Blocks of a segment. */
const SEGMENT_BLOCKS = SEGMENT_TOKENS / CUDA_BLOCK_TOKENS;

/** Sizes of the tables. */
export interface TableSize {
  /** Tables, one for each sequence of a step. */
  readonly rows: number;
  /** Entries of a table. */
  readonly width: number;
}

/** Table entries that the device does not have yet: pairs of word and block id, one after the other. */
export type TablePatches = Int32Array<ArrayBuffer>;

/** Blocks that a sequence has after a step. */
export function blockCount({ position, tokens }: Pick<StepSequence, "position" | "tokens">): number {
  return Math.ceil((position + tokens.length) / CUDA_BLOCK_TOKENS);
}

/** Sizes that hold `batch`, no smaller than `size`; they double, so that they rarely change. */
export function tableSizeFor(batch: readonly StepSequence[], size: TableSize): TableSize {
  const width = batch.reduce((most, sequence) => Math.max(most, blockCount(sequence)), 0);
  const grown = (now: number, needed: number) => needed <= now ? now : 2 ** Math.ceil(Math.log2(needed));
  return { rows: grown(size.rows, batch.length), width: grown(size.width, width) };
}

/** The entries the device has. Sequence i of a batch uses table i. */
export class TableMirror {
  /** Sizes of the tables. */
  readonly size: TableSize;
  readonly #entries: Int32Array;
  #patches: TablePatches = new Int32Array(64);

  /** The device's tables hold nothing that counts. */
  constructor(size: TableSize) {
    this.size = size;
    this.#entries = new Int32Array(size.rows * size.width).fill(-1);
  }

  /**
   * What the device needs to run `batch`, which fits. It counts as sent. A view, valid until the next call. Entries of
   * absent segments are left as they are.
   */
  update(batch: readonly StepSequence[]): TablePatches {
    const { width } = this.size;
    let next = 0;
    for (const [row, sequence] of batch.entries()) {
      const { blocks, absent = [] } = sequence;
      const count = blockCount(sequence);
      let gap = 0;
      for (let i = 0; i < count; i++) {
        if (gap < absent.length && i >= absent[gap].from * SEGMENT_BLOCKS) {
          i = absent[gap++].to * SEGMENT_BLOCKS - 1;
          continue;
        }
        const word = row * width + i;
        const block = blocks[i];
        if (this.#entries[word] === block) continue;
        this.#entries[word] = block;
        if (next === this.#patches.length) this.#grow();
        this.#patches[next++] = word;
        this.#patches[next++] = block;
      }
    }
    return this.#patches.subarray(0, next);
  }

  #grow(): void {
    const wider = new Int32Array(2 * this.#patches.length);
    wider.set(this.#patches);
    this.#patches = wider;
  }
}
