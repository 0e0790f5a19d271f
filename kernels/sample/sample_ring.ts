/**
 * Results of the sampling kernel as the host finds them: a ring of steps in pinned memory that the GPU writes.
 *
 * @module
 */
import type { SampleOutcome, SampleResult } from "./spec.ts";

/** Bytes before the results of a step: its number, its rows, nothing. */
const HEADER_BYTES = 64;
/** Bytes of one result: i32 id, f32 logit, f32 lse, u32 tag. */
const RESULT_BYTES = 16;

/** Sizes of a ring. */
export interface SampleRingSize {
  /** Steps it holds; a step overwrites what the step that many before it left. */
  readonly slots: number;
  /** Most rows of a step. */
  readonly rows: number;
}

/** Bytes of a ring. */
export function sampleRingBytes({ slots, rows }: SampleRingSize): number {
  return slots * (HEADER_BYTES + rows * RESULT_BYTES);
}

/** Reads a ring. Steps count from 1, modulo 2^32. */
export class SampleRing {
  /** Its sizes. */
  readonly size: SampleRingSize;
  readonly #words: Int32Array;
  readonly #floats: Float32Array;

  /** Reads `memory`, whose first {@linkcode sampleRingBytes} bytes are the ring. @throws {RangeError} when it is too small. */
  constructor(memory: ArrayBuffer, size: SampleRingSize) {
    const bytes = sampleRingBytes(size);
    if (memory.byteLength < bytes) {
      throw new RangeError(`Cannot read a ring of results: wanted ${bytes} bytes, got ${memory.byteLength}`);
    }
    this.size = size;
    this.#words = new Int32Array(memory, 0, bytes / 4);
    this.#floats = new Float32Array(memory, 0, bytes / 4);
  }

  /** Whether the results of a step are there. */
  has(step: number): boolean {
    return Atomics.load(this.#words, this.#slot(step)) >>> 0 === step;
  }

  /** Rows of a step whose results are there. */
  rows(step: number): number {
    return this.#words[this.#slot(step) + 1];
  }

  /** Result of one row of a step whose results are there. */
  result(step: number, row: number): SampleResult {
    const at = this.#slot(step) + (HEADER_BYTES + row * RESULT_BYTES) / 4;
    return {
      outcome: outcomeOf(this.#words[at], this.#floats[at + 1]),
      logSumExp: this.#floats[at + 2],
      tag: this.#words[at + 3] >>> 0,
    };
  }

  #slot(step: number): number {
    const { slots, rows } = this.size;
    return step % slots * ((HEADER_BYTES + rows * RESULT_BYTES) / 4);
  }
}

/** Ids below 0 name no token: sample.cu. */
function outcomeOf(id: number, logit: number): SampleOutcome {
  switch (id) {
    case -1:
      return { kind: "undecided" };
    case -2:
      return { kind: "bad logits" };
    case -3:
      return { kind: "host" };
    default:
      return { kind: "chosen", id, logit };
  }
}
