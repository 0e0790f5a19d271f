/**
 * Steps of a WASM device: the record that the kernels read, and the calls that carry a step on.
 *
 * @module
 */
import type { AttentionPartial } from "../../kernels/merge_partials/spec.ts";
import type { WasmRuntime } from "../../kernels/wasm/instance.ts";
import type { ModelConfig } from "../model/model.ts";
import { type BatchSize, logitRows } from "./batch_check.ts";
import type { StepRunner } from "./checked_step.ts";
import { type StepOutput, type StepSequence, type StepStop, TOP_CANDIDATES } from "./device.ts";
import { HostBuffer } from "./host_buffer.ts";
import type { SequenceNode } from "./step_nodes.ts";
import type { WasmModel } from "./wasm_model.ts";

/** Words of a step header and of one sequence in it (`Step` and `Sequence` in `model.rs`). */
const STEP_WORDS = 6;
const SEQUENCE_WORDS = 8;

/** What a device runs its steps with. */
export interface WasmStepsParts {
  /** The kernels. */
  readonly runtime: WasmRuntime;
  /** Weights and buffers. */
  readonly model: WasmModel;
  /** Sizes. */
  readonly config: ModelConfig;
  /** Tokens of one KV block. */
  readonly blockTokens: number;
}

/** A checked batch. */
export interface WasmBatch {
  /** Its sequences. */
  readonly batch: readonly StepSequence[];
  /** Its totals. */
  readonly size: BatchSize;
  /** For each sequence, its nodes when segments are absent. */
  readonly nodes: readonly (readonly SequenceNode[])[];
}

/** Runs steps, one at a time: beginning another one ends the last. */
export class WasmSteps {
  readonly #parts: WasmStepsParts;
  readonly #record: HostBuffer;
  readonly #partials: HostBuffer;

  /** Steps of one device. */
  constructor(parts: WasmStepsParts) {
    this.#parts = parts;
    this.#record = new HostBuffer(parts.runtime);
    this.#partials = new HostBuffer(parts.runtime);
  }

  /**
   * Begins a step.
   *
   * @throws {RangeError} when no memory is left for its partials.
   */
  begin({ batch, size, nodes }: WasmBatch): StepRunner {
    const { runtime, model, config } = this.#parts;
    const { heads, headDim } = config;
    // Floats of one partial of each sequence, and where its first partial lies.
    const sizes = batch.map(({ tokens }) => tokens.length * heads * (headDim + 1));
    const address = this.#partials.reserve(sizes.reduce((sum, floats, index) => sum + floats * nodes[index].length, 0));
    let next = address;
    const places = sizes.map((floats, index) => {
      const place = next;
      next += 4 * floats * nodes[index].length;
      return place;
    });
    const firsts: number[] = [];
    batch.reduce((first, { tokens }) => (firsts.push(first), first + tokens.length), 0);
    if (size.tokens > 0) {
      runtime.exports.workspace_begin(model.workspace, this.#write({ batch, size, nodes }, places));
    }
    return {
      advance: (budget) => size.tokens === 0 ? { kind: "done", output: this.#output(0) } : this.#advance(budget, size),
      queries: (index) => {
        const width = heads * headDim;
        return runtime.f32(model.queries + 4 * width * firsts[index], width * batch[index].tokens.length);
      },
      store: (index, node, { o, lse }: AttentionPartial) => {
        const at = places[index] + 4 * sizes[index] * node;
        runtime.f32(at, o.length).set(o);
        runtime.f32(at + 4 * o.length, lse.length).set(lse);
      },
    };
  }

  #advance(budget: number, { rows }: BatchSize): StepStop {
    const { runtime, model } = this.#parts;
    const stop = runtime.exports.workspace_advance(model.workspace, budget);
    const layer = stop >>> 2;
    switch (stop & 3) {
      case 0:
        return { kind: "done", output: this.#output(rows) };
      case 1:
        return { kind: "slice" };
      case 2:
        return { kind: "queries", layer };
      default:
        return { kind: "partials", layer };
    }
  }

  #blockCount(sequence: StepSequence): number {
    return Math.ceil((sequence.position + sequence.tokens.length) / this.#parts.blockTokens);
  }

  /** Writes the record of a step; `places` are the addresses of the sequences' partials. */
  #write({ batch, size: { tokens, rows }, nodes }: WasmBatch, places: readonly number[]): number {
    const lists = batch.reduce((sum, sequence, index) => sum + this.#blockCount(sequence) + 2 * nodes[index].length, 0);
    const words = STEP_WORDS + SEQUENCE_WORDS * batch.length + tokens + rows + lists;
    const address = this.#record.reserve(words);
    const view = this.#parts.runtime.u32(address, words);
    const sequencesAt = STEP_WORDS;
    const tokensAt = sequencesAt + SEQUENCE_WORDS * batch.length;
    const rowsAt = tokensAt + tokens;
    view.set(
      [tokens, batch.length, rows, address + 4 * tokensAt, address + 4 * sequencesAt, address + 4 * rowsAt],
    );
    let token = 0;
    let row = 0;
    let next = rowsAt + rows;
    for (const [index, sequence] of batch.entries()) {
      const count = sequence.tokens.length;
      for (let i = 0; i < count; i++) view[tokensAt + token + i] = sequence.tokens[i];
      const wanted = logitRows(sequence);
      for (let i = 0; i < wanted; i++) view[rowsAt + row++] = token + count - wanted + i;
      const blocksAt = address + 4 * next;
      const blockCount = this.#blockCount(sequence);
      for (let i = 0; i < blockCount; i++) view[next++] = sequence.blocks[i];
      const firstAt = address + 4 * next;
      for (const { first } of nodes[index]) view[next++] = first;
      const segmentsAt = address + 4 * next;
      for (const { segments, local } of nodes[index]) view[next++] = local ? segments : 0;
      const { position } = sequence;
      view.set(
        [token, count, position, blocksAt, nodes[index].length, firstAt, segmentsAt, places[index]],
        sequencesAt + SEQUENCE_WORDS * index,
      );
      token += count;
    }
    return address;
  }

  #output(rows: number): StepOutput {
    const { runtime, model, config: { vocab } } = this.#parts;
    const candidates = Math.min(TOP_CANDIDATES, vocab);
    const check = (row: number) => {
      if (!Number.isInteger(row) || row < 0 || row >= rows) {
        throw new RangeError(`Cannot read logits: row must be in 0..${rows - 1}, got ${row}`);
      }
    };
    return {
      rows,
      logits(row) {
        check(row);
        return runtime.f32(model.logits + 4 * vocab * row, vocab);
      },
      logSumExp(row) {
        check(row);
        return runtime.f32(model.summaries + model.summaryBytes * row, 1)[0];
      },
      top(row) {
        check(row);
        const at = model.summaries + model.summaryBytes * row + 8;
        return {
          ids: runtime.i32(at, candidates),
          logits: runtime.f32(at + 4 * TOP_CANDIDATES, candidates),
        };
      },
    };
  }
}
