/**
 * A step of the reference device, one token and one head at a time.
 *
 * @module
 */
import type { AttentionPartial } from "../../kernels/merge_partials/spec.ts";
import type { ModelConfig, OpenModel } from "../model/model.ts";
import { readValues } from "../weights/f32_vector.ts";
import { logitRows } from "./batch_check.ts";
import type { StepRunner } from "./checked_step.ts";
import { type StepOutput, type StepSequence, type StepStop, TOP_CANDIDATES } from "./device.ts";
import type { HeadPartial } from "./reference_attention.ts";
import type { ReferenceKvStore } from "./reference_kv_store.ts";
import { type Layer, layerOf, type Matrix, matrixOf, multiply, normalize, rotate } from "./reference_model.ts";
import type { SequenceNode } from "./step_nodes.ts";

/** All weights of a model. */
export interface ReferenceWeights {
  /** [vocab, hidden] */
  readonly embedding: Matrix;
  /** [vocab, hidden] */
  readonly head: Matrix;
  /** [hidden] */
  readonly outputNorm: Float32Array;
  /** Transformer blocks. */
  readonly layers: readonly Layer[];
}

/** Reads all weights of a model. */
export function readWeights({ weights }: OpenModel): ReferenceWeights {
  const embedding = matrixOf(weights.embedding);
  return {
    embedding,
    head: weights.head === weights.embedding ? embedding : matrixOf(weights.head),
    outputNorm: readValues(weights.outputNorm),
    layers: weights.layers.map(layerOf),
  };
}

/** What a step runs on. */
export interface ReferenceStepParts {
  /** Weights. */
  readonly weights: ReferenceWeights;
  /** Sizes. */
  readonly config: ModelConfig;
  /** The pool. */
  readonly store: ReferenceKvStore;
  /** The checked batch. */
  readonly batch: readonly StepSequence[];
  /** For each sequence, its nodes when segments are absent. */
  readonly nodes: readonly (readonly SequenceNode[])[];
}

/** One new token on its way through the layers. */
interface Token {
  readonly sequence: number;
  /** Its place among the sequence's new tokens. */
  readonly index: number;
  readonly position: number;
  readonly wanted: boolean;
  /** Residual stream. */
  x: Float64Array;
  /** Rotated queries, rounded to f32, which is how they travel. */
  query: Float32Array;
}

/** Runs one step. */
export class ReferenceStep implements StepRunner {
  readonly #parts: ReferenceStepParts;
  readonly #tokens: readonly Token[];
  readonly #partials: readonly Map<number, AttentionPartial>[];
  readonly #stops: Generator<StepStop, StepOutput>;
  #left = Infinity;

  /** Computes nothing yet. */
  constructor(parts: ReferenceStepParts) {
    this.#parts = parts;
    this.#tokens = parts.batch.flatMap((sequence, index) => this.#embed(sequence, index));
    this.#partials = parts.batch.map(() => new Map());
    this.#stops = this.#run();
  }

  /** See {@linkcode StepRunner.advance}. */
  advance(budget: number): StepStop {
    this.#parts.store.check();
    this.#left = budget;
    const stop = this.#stops.next();
    return stop.done === true ? { kind: "done", output: stop.value } : stop.value;
  }

  /** See {@linkcode StepRunner.queries}. */
  queries(index: number): Float32Array {
    const rows = this.#tokens.filter(({ sequence }) => sequence === index).map(({ query }) => query);
    const width = rows[0].length;
    const all = new Float32Array(rows.length * width);
    rows.forEach((row, i) => all.set(row, i * width));
    return all;
  }

  /** See {@linkcode StepRunner.store}. */
  store(index: number, node: number, { o, lse }: AttentionPartial): void {
    this.#partials[index].set(node, { o: o.slice(), lse: lse.slice() });
  }

  #embed(sequence: StepSequence, index: number): Token[] {
    const { weights: { embedding: { cols, values } } } = this.#parts;
    const count = sequence.tokens.length;
    return Array.from({ length: count }, (_, i) => ({
      sequence: index,
      index: i,
      position: sequence.position + i,
      wanted: i >= count - logitRows(sequence),
      x: Float64Array.from(values.subarray(sequence.tokens[i] * cols, (sequence.tokens[i] + 1) * cols)),
      query: new Float32Array(0),
    }));
  }

  *#run(): Generator<StepStop, StepOutput> {
    const { weights, config, nodes } = this.#parts;
    const spread = nodes.some(({ length }) => length > 0);
    for (const [layer, block] of weights.layers.entries()) {
      for (const token of this.#tokens) {
        yield* this.#spend(block.query);
        const query = multiply(block.query, normalize(token.x, block.attentionNorm, config.normEps), block.queryBias);
        rotate(query, token.position, config);
        token.query = Float32Array.from(query);
      }
      if (spread) yield { kind: "queries", layer };
      for (const token of this.#tokens) {
        yield* this.#spend(block.key);
        this.#append(token, layer);
      }
      if (spread) yield { kind: "partials", layer };
      for (const token of this.#tokens) {
        yield* this.#spend(block.gate);
        this.#finish(token, layer);
      }
      this.#partials.forEach((partials) => partials.clear());
    }
    const rows: Float32Array[] = [];
    for (const { x } of this.#tokens.filter(({ wanted }) => wanted)) {
      yield* this.#spend(weights.head);
      rows.push(Float32Array.from(multiply(weights.head, normalize(x, weights.outputNorm, config.normEps))));
    }
    return outputOf(rows);
  }

  *#spend({ rows, cols }: Matrix): Generator<StepStop, void> {
    if (this.#left <= 0) yield { kind: "slice" };
    this.#left -= rows * cols;
  }

  #append({ sequence, position, x }: Token, layer: number): void {
    const { weights, config, store, batch } = this.#parts;
    const { headDim } = config;
    const block = weights.layers[layer];
    const h = normalize(x, block.attentionNorm, config.normEps);
    const key = multiply(block.key, h, block.keyBias);
    const value = multiply(block.value, h, block.valueBias);
    rotate(key, position, config);
    for (let kvHead = 0; kvHead < config.kvHeads; kvHead++) {
      const [from, to] = [kvHead * headDim, (kvHead + 1) * headDim];
      store.append({
        place: { layer, kvHead, blocks: batch[sequence].blocks },
        position,
        key: key.subarray(from, to),
        value: value.subarray(from, to),
      });
    }
  }

  /** Attention, output projection and MLP. */
  #finish(token: Token, layer: number): void {
    const { weights, config: { normEps } } = this.#parts;
    const block = weights.layers[layer];
    const projected = multiply(block.output, this.#attend(token, layer));
    const x = token.x.map((v, i) => v + projected[i]);
    const m = normalize(x, block.mlpNorm, normEps);
    const gate = multiply(block.gate, m);
    const up = multiply(block.up, m);
    const down = multiply(block.down, gate.map((g, i) => (g / (1 + Math.exp(-g))) * up[i]));
    token.x = x.map((v, i) => v + down[i]);
  }

  #attend({ sequence, index, position, query }: Token, layer: number): Float64Array {
    const { config: { heads, kvHeads, headDim }, store, batch } = this.#parts;
    const attended = new Float64Array(heads * headDim);
    for (let head = 0; head < heads; head++) {
      const kvHead = Math.floor(head / (heads / kvHeads));
      const { o } = store.attendTo(query.subarray(head * headDim, (head + 1) * headDim), {
        place: { layer, kvHead, blocks: batch[sequence].blocks },
        end: position + 1,
        known: (first, segments) => this.#known({ sequence, row: index * heads + head }, { first, segments }),
      });
      attended.set(o, head * headDim);
    }
    return attended;
  }

  /** What was brought of one query head for a node. */
  #known(
    { sequence, row }: { readonly sequence: number; readonly row: number },
    { first, segments }: { readonly first: number; readonly segments: number },
  ): HeadPartial | undefined {
    const { nodes, config: { headDim } } = this.#parts;
    const number = nodes[sequence].findIndex((node) =>
      !node.local && node.first === first && node.segments === segments
    );
    const partial = this.#partials[sequence].get(number);
    if (partial === undefined) return undefined;
    return { o: partial.o.slice(row * headDim, (row + 1) * headDim), lse: partial.lse[row] };
  }
}

function outputOf(rows: readonly Float32Array[]): StepOutput {
  const at = (row: number): Float32Array => {
    if (!Number.isInteger(row) || row < 0 || row >= rows.length) {
      throw new RangeError(`Cannot read logits: row must be in 0..${rows.length - 1}, got ${row}`);
    }
    return rows[row];
  };
  return {
    rows: rows.length,
    logits: at,
    logSumExp(row) {
      const logits = at(row);
      const most = logits.reduce((a, b) => Math.max(a, b));
      return most + Math.log(logits.reduce((sum, x) => sum + Math.exp(x - most), 0));
    },
    top(row) {
      const logits = at(row);
      const ids = Int32Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b)
        .subarray(0, TOP_CANDIDATES);
      return { ids, logits: Float32Array.from(ids, (id) => logits[id]) };
    },
  };
}
