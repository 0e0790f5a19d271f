/**
 * A step of the toy model, with every stop of the contract.
 *
 * @module
 */
import { mergePartialsReference } from "../../kernels/merge_partials/reference.ts";
import { type AttentionPartial, type SegmentNode, segmentNodes } from "../../kernels/merge_partials/spec.ts";
import { logitRows } from "../../runtime/device/batch_check.ts";
import {
  type DeviceStep,
  type SegmentRange,
  type StepOutput,
  type StepSequence,
  type StepStop,
  TOP_CANDIDATES,
} from "../../runtime/device/device.ts";
import {
  advanceState,
  embed,
  keyOf,
  TOY_HEADS,
  TOY_LAYERS,
  TOY_WIDTH,
  toyLogits,
  ToySum,
  writeQuery,
} from "./toy_model.ts";
import type { ToyStore } from "./toy_store.ts";

/** One sequence on its way through the layers. */
interface Row {
  readonly sequence: StepSequence;
  readonly absent: readonly SegmentRange[];
  readonly states: Uint32Array;
  queries: Float32Array;
  /** What lies in the pool, attended to by each query. */
  local: AttentionPartial;
  /** What was brought, by first segment. */
  readonly brought: Map<number, AttentionPartial>;
}

/** What a {@linkcode ToyStep} stands on. */
export interface ToyStepOptions {
  /** Blocks. */
  readonly store: ToyStore;
  /** Tokens of one segment. */
  readonly segmentTokens: number;
  /** Told once, when the step is done or abandoned. */
  readonly onEnd: () => void;
}

/** Runs a batch through the layers. */
export class ToyStep implements DeviceStep {
  readonly #rows: readonly Row[];
  readonly #options: ToyStepOptions;
  readonly #absent: boolean;
  readonly #sums = Array.from({ length: TOY_HEADS }, () => new ToySum());
  #layer = 0;
  #phase: "queries" | "write" | "attend" | "partials" | "merge" | "over" = "queries";
  /** The next query of this layer that has yet to attend: sequence and token. */
  #cursor = { row: 0, token: 0 };

  /** Begins with a checked batch. */
  constructor(batch: readonly StepSequence[], options: ToyStepOptions) {
    this.#options = options;
    this.#rows = batch.map((sequence) => ({
      sequence,
      absent: sequence.absent ?? [],
      states: Uint32Array.from(
        { length: sequence.tokens.length },
        (_, i) => embed(sequence.tokens[i], sequence.position + i),
      ),
      queries: new Float32Array(0),
      local: { o: new Float32Array(0), lse: new Float32Array(0) },
      brought: new Map(),
    }));
    this.#absent = this.#rows.some(({ absent }) => absent.length > 0);
  }

  /** See {@linkcode DeviceStep.next}. */
  next(budget = Infinity): StepStop {
    for (let left = budget;;) {
      switch (this.#phase) {
        case "queries":
          for (const row of this.#rows) this.#makeQueries(row);
          this.#phase = "write";
          if (this.#absent) return { kind: "queries", layer: this.#layer };
          break;
        case "write":
          for (const row of this.#rows) this.#writeKeys(row);
          this.#cursor = { row: 0, token: 0 };
          this.#phase = "attend";
          break;
        case "attend":
          left -= this.#attendNext();
          if (left <= 0) return { kind: "slice" };
          break;
        case "partials":
          this.#phase = "merge";
          if (this.#absent) return { kind: "partials", layer: this.#layer };
          break;
        case "merge":
          this.#rows.forEach((row, index) => this.#checkBrought(row, index));
          for (const row of this.#rows) this.#merge(row);
          this.#phase = "queries";
          if (++this.#layer < TOY_LAYERS) break;
          this.abandon();
          return { kind: "done", output: this.#output() };
        case "over":
          throw new Error("Cannot go on with a step: it is done or abandoned");
        default:
          this.#phase satisfies never;
      }
    }
  }

  /** See {@linkcode DeviceStep.queries}. */
  queries(index: number): Float32Array {
    if (this.#phase === "queries" || this.#phase === "over") {
      throw new Error("Cannot read queries: the step has none at this stop");
    }
    return this.#rowAt(index).queries;
  }

  /** See {@linkcode DeviceStep.put}. */
  put(index: number, node: SegmentNode, partial: AttentionPartial): void {
    const row = this.#rowAt(index);
    if (!nodesOf(row).some(({ first, segments }) => first === node.first && segments === node.segments)) {
      throw new RangeError(
        `Cannot put a partial: sequence ${index} has no absent node of ${node.segments} segments at ${node.first}`,
      );
    }
    const { length } = row.states;
    if (partial.o.length !== length * TOY_WIDTH || partial.lse.length !== length * TOY_HEADS) {
      throw new RangeError(
        `Cannot put a partial: wanted ${length * TOY_WIDTH} and ${length * TOY_HEADS} values, ` +
          `got ${partial.o.length} and ${partial.lse.length}`,
      );
    }
    row.brought.set(node.first, { o: partial.o.slice(), lse: partial.lse.slice() });
  }

  /** See {@linkcode DeviceStep.abandon}. */
  abandon(): void {
    if (this.#phase === "over") return;
    this.#phase = "over";
    this.#options.onEnd();
  }

  #rowAt(index: number): Row {
    const row = this.#rows[index];
    if (row === undefined) {
      throw new RangeError(`Cannot access a sequence of the batch: wanted 0..${this.#rows.length - 1}, got ${index}`);
    }
    return row;
  }

  #makeQueries(row: Row): void {
    // Whoever kept a view of the last layer's sees it.
    row.queries.fill(NaN);
    const { length } = row.states;
    row.queries = new Float32Array(length * TOY_WIDTH);
    for (let i = 0; i < length; i++) {
      writeQuery(this.#layer, row.states[i], row.queries.subarray(i * TOY_WIDTH, (i + 1) * TOY_WIDTH));
    }
    row.local = { o: new Float32Array(length * TOY_WIDTH), lse: new Float32Array(length * TOY_HEADS).fill(-Infinity) };
    row.brought.clear();
  }

  #writeKeys({ sequence: { position, blocks }, states }: Row): void {
    const { store } = this.#options;
    for (let i = 0; i < states.length; i++) {
      const block = blocks[Math.floor((position + i) / store.layout.blockTokens)];
      store.write(this.#layer, { block, position: position + i }, keyOf(this.#layer, states[i]));
    }
  }

  /** Lets one query attend to what is in the pool. @returns the work. */
  #attendNext(): number {
    const { row: index, token } = this.#cursor;
    const row = this.#rows[index];
    const keys = this.#localKeys(row, row.sequence.position + token + 1);
    for (let head = 0; head < TOY_HEADS; head++) {
      const at = token * TOY_HEADS + head;
      this.#options.store.sumRow(keys, { queries: row.queries, row: at }).store(row.local, at);
    }
    const last = token + 1 === row.states.length;
    this.#cursor = last ? { row: index + 1, token: 0 } : { row: index, token: token + 1 };
    if (last && index + 1 === this.#rows.length) this.#phase = "partials";
    return keys.length * TOY_WIDTH;
  }

  /** Keys of the positions below `end` that are in the pool. */
  #localKeys({ sequence: { blocks }, absent }: Row, end: number): Uint32Array {
    const { store, segmentTokens } = this.#options;
    const parts: Uint32Array[] = [];
    let from = 0;
    for (const range of [...absent, { from: Infinity, to: Infinity }]) {
      const to = Math.min(end, range.from * segmentTokens);
      if (to > from) parts.push(store.keys(this.#layer, { blocks, base: 0, from, to }));
      from = range.to * segmentTokens;
    }
    const keys = new Uint32Array(parts.reduce((sum, part) => sum + part.length, 0));
    parts.reduce((at, part) => (keys.set(part, at), at + part.length), 0);
    return keys;
  }

  #checkBrought(row: Row, index: number): void {
    const missing = nodesOf(row).find(({ first }) => !row.brought.has(first));
    if (missing === undefined) return;
    throw new Error(
      `Cannot go on with a step: sequence ${index} misses the partial of ${missing.segments} segments at ${missing.first}`,
    );
  }

  #merge(row: Row): void {
    const merged = row.absent.length === 0
      ? row.local
      : mergePartialsReference([row.local, ...nodesOf(row).map(({ first }) => partialOf(row, first))]);
    for (let token = 0; token < row.states.length; token++) {
      for (const [head, sum] of this.#sums.entries()) this.#load(sum, merged, token * TOY_HEADS + head);
      const wanted = row.sequence.position + token + 1;
      if (this.#sums[0].weight !== wanted) {
        this.#options.store.fault(
          `I10: the query at position ${wanted - 1} attends to ${this.#sums[0].weight} tokens, wanted ${wanted}`,
        );
      }
      row.states[token] = advanceState(row.states[token], this.#sums);
    }
  }

  /** What was merged is whole numbers whatever goes wrong around it: parts that do not fit together are a broken promise. */
  #load(sum: ToySum, merged: AttentionPartial, row: number): void {
    try {
      sum.load(merged, row);
    } catch (error) {
      if (error instanceof RangeError) this.#options.store.fault(`I10: ${error.message}`);
      throw error;
    }
  }

  #output(): StepOutput {
    const rows = this.#rows.flatMap(({ sequence, states }) =>
      Array.from(states.subarray(states.length - logitRows(sequence)), toyLogits)
    );
    const at = (row: number): Float32Array => {
      if (rows[row] === undefined) {
        throw new RangeError(`Cannot read logits: wanted a row of 0..${rows.length - 1}, got ${row}`);
      }
      return rows[row];
    };
    return {
      rows: rows.length,
      logits: at,
      logSumExp: (row) => Math.log(at(row).reduce((sum, logit) => sum + Math.exp(logit), 0)),
      top: (row) => {
        const logits = at(row);
        const ids = Int32Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b)
          .slice(0, TOP_CANDIDATES);
        return { ids, logits: Float32Array.from(ids, (id) => logits[id]) };
      },
    };
  }
}

function nodesOf({ absent }: Row): SegmentNode[] {
  return absent.flatMap(({ from, to }) => segmentNodes(from, to));
}

function partialOf({ brought }: Row, first: number): AttentionPartial {
  const partial = brought.get(first);
  if (partial === undefined) throw new Error(`Cannot merge: the partial at segment ${first} is missing`);
  return partial;
}
