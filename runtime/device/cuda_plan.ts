/**
 * The plan of a step: everything the kernels read that differs from step to step, as 32-bit words that go to the device in
 * one copy. Its places depend on its capacity alone, so a graph of one capacity finds them where it was captured.
 *
 * @module
 */
import type { DevicePtr } from "../../ffi/cuda/cuda.ts";
import { logitRows } from "./batch_check.ts";
import { addressAt } from "./cuda_address.ts";
import type { StepSequence } from "./device.ts";
import type { TablePatches } from "./cuda_tables.ts";

/** What a plan has room for. */
export interface PlanCapacity {
  /** Query tokens. */
  readonly tokens: number;
  /** Sequences. */
  readonly sequences: number;
  /** Rows of logits. */
  readonly rows: number;
  /** Table entries. */
  readonly patches: number;
  /** Words for attention's own plans. @default {0} */
  readonly extra?: number;
}

/** Words of the header. */
const HEADER_WORDS = 8;
/** Words that every part begins at a multiple of: 16 bytes, for wide reads. */
const PART_WORDS = 4;

/** Where the parts of a plan lie, in words. */
export interface PlanPlaces {
  /** Number that a captured step signals at its end. */
  readonly step: number;
  /** Query tokens of the step; u32. */
  readonly tokenCount: number;
  /** Sequences of the step. */
  readonly sequenceCount: number;
  /** Rows of logits of the step; u32. */
  readonly rowCount: number;
  /** Table entries to write. */
  readonly patchCount: number;
  /** Id of each token; 0 in padding. */
  readonly tokens: number;
  /** Position of each token; 0 in padding. */
  readonly positions: number;
  /** Table of each token; -1 in padding. */
  readonly tables: number;
  /** KV tokens of each sequence after the step; 0 in padding. */
  readonly lengths: number;
  /** First token of each sequence, and one past the last token. */
  readonly starts: number;
  /** Token of each row of logits; 0 in padding. */
  readonly rows: number;
  /** Pairs of table word and block id. */
  readonly patches: number;
  /** Words of attention's own plans. */
  readonly extra: number;
  /** Words of the whole. */
  readonly words: number;
}

/** The places of a plan of this capacity. */
export function planPlaces({ tokens, sequences, rows, patches, extra = 0 }: PlanCapacity): PlanPlaces {
  let next = HEADER_WORDS;
  const take = (words: number): number => {
    const at = next;
    next = Math.ceil((next + words) / PART_WORDS) * PART_WORDS;
    return at;
  };
  return {
    step: 0,
    tokenCount: 1,
    sequenceCount: 2,
    rowCount: 3,
    patchCount: 4,
    tokens: take(tokens),
    positions: take(tokens),
    tables: take(tokens),
    lengths: take(sequences),
    starts: take(sequences + 1),
    rows: take(rows),
    patches: take(2 * patches),
    extra: take(extra),
    words: next,
  };
}

/** A step to be written. */
export interface PlannedStep {
  /** Its number. */
  readonly step: number;
  /** Its sequences; sequence i uses table i. */
  readonly batch: readonly StepSequence[];
  /** Table entries to write. */
  readonly patches: TablePatches;
  /** Words for attention's own plans. @default {none} */
  readonly extra?: Int32Array;
}

/** Writes a plan, which fits the capacity, and its padding. */
export function writePlan(
  words: Int32Array,
  { step, batch, patches, extra }: PlannedStep,
  capacity: PlanCapacity,
): void {
  const places = planPlaces(capacity);
  let token = 0;
  let row = 0;
  for (const [index, sequence] of batch.entries()) {
    const count = sequence.tokens.length;
    words[places.starts + index] = token;
    words[places.lengths + index] = sequence.position + count;
    const wanted = logitRows(sequence);
    for (let i = 0; i < wanted; i++) words[places.rows + row++] = token + count - wanted + i;
    for (let i = 0; i < count; i++) {
      words[places.tokens + token] = sequence.tokens[i];
      words[places.positions + token] = sequence.position + i;
      words[places.tables + token] = index;
      token++;
    }
  }
  words[places.step] = step;
  words[places.tokenCount] = token;
  words[places.sequenceCount] = batch.length;
  words[places.rowCount] = row;
  words[places.patchCount] = patches.length / 2;
  words.fill(0, places.tokens + token, places.tokens + capacity.tokens);
  words.fill(0, places.positions + token, places.positions + capacity.tokens);
  words.fill(-1, places.tables + token, places.tables + capacity.tokens);
  words.fill(0, places.lengths + batch.length, places.lengths + capacity.sequences);
  words.fill(token, places.starts + batch.length, places.starts + capacity.sequences + 1);
  words.fill(0, places.rows + row, places.rows + capacity.rows);
  words.set(patches, places.patches);
  if (extra !== undefined) words.set(extra, places.extra);
}

/** A plan on the device. */
export interface DevicePlan {
  /** What it has room for; fixes the grids of its kernels. */
  readonly capacity: PlanCapacity;
  /** Where its parts lie. */
  readonly places: PlanPlaces;
  /** Its first word. */
  readonly address: DevicePtr;
  /** Block tables, i32 [tables, tableWidth]. */
  readonly tables: DevicePtr;
  /** Entries of a table. */
  readonly tableWidth: number;
  /** Whether kernels may begin before their predecessor has ended; they wait inside for its results. */
  readonly overlap: boolean;
  /** Whether the tokens whose logits are wanted have been brought to the front. @default {false} */
  readonly wantedFirst?: boolean;
}

/** Address of a word of a plan. */
export function planAddress({ address }: DevicePlan, word: number): DevicePtr {
  return addressAt(address, 4 * word);
}
