/**
 * The reference device: the obvious transformer in f64, one token and one head at a time. It is the executable
 * specification of {@linkcode Device}, thousands of times slower than a real one; tests compare the others with it.
 *
 * Weights are exact, activations are never rounded (whatever `activations` says), keys and values are rounded to the
 * pool's type.
 *
 * @module
 */
import { roundKv } from "../../kernels/attend_partial/reference.ts";
import type { AttentionPartial } from "../../kernels/merge_partials/spec.ts";
import type { LayerWeights, ModelConfig, OpenModel, WeightTensor } from "../model/model.ts";
import { readValues } from "../weights/f32_vector.ts";
import { checkBatch, checkRanges, logitRows } from "./batch_check.ts";
import {
  type AttendRange,
  type Device,
  type DeviceInfo,
  type DeviceOptions,
  type StepOutput,
  type StepSequence,
  TOP_CANDIDATES,
} from "./device.ts";

/** A matrix of exact weights, [rows, cols]. */
interface Matrix {
  readonly rows: number;
  readonly cols: number;
  readonly values: Float32Array;
}

type Layer = Record<"query" | "key" | "value" | "output" | "gate" | "up" | "down", Matrix> & {
  readonly attentionNorm: Float32Array;
  readonly mlpNorm: Float32Array;
  readonly queryBias?: Float32Array;
  readonly keyBias?: Float32Array;
  readonly valueBias?: Float32Array;
};

/** Keys and values of one head over a list of tokens, each [headDim]. */
interface HeadTokens {
  readonly keys: readonly Float32Array[];
  readonly values: readonly Float32Array[];
}

function matrixOf(tensor: WeightTensor): Matrix {
  return { rows: tensor.rows, cols: tensor.cols, values: readValues(tensor) };
}

function layerOf(weights: LayerWeights): Layer {
  const vector = (tensor: WeightTensor | undefined) => tensor === undefined ? undefined : readValues(tensor);
  return {
    attentionNorm: readValues(weights.attentionNorm),
    query: matrixOf(weights.query),
    key: matrixOf(weights.key),
    value: matrixOf(weights.value),
    queryBias: vector(weights.queryBias),
    keyBias: vector(weights.keyBias),
    valueBias: vector(weights.valueBias),
    output: matrixOf(weights.output),
    mlpNorm: readValues(weights.mlpNorm),
    gate: matrixOf(weights.gate),
    up: matrixOf(weights.up),
    down: matrixOf(weights.down),
  };
}

/** y[r] = Σ w[r, k] x[k] + bias[r] */
function multiply({ rows, cols, values }: Matrix, x: Float64Array, bias?: Float32Array): Float64Array {
  const y = new Float64Array(rows);
  for (let r = 0; r < rows; r++) {
    let sum = 0;
    for (let k = 0; k < cols; k++) sum += values[r * cols + k] * x[k];
    y[r] = sum + (bias?.[r] ?? 0);
  }
  return y;
}

/** x / rms(x) * weight */
function normalize(x: Float64Array, weight: Float32Array, eps: number): Float64Array {
  const meanSquare = x.reduce((sum, v) => sum + v * v, 0) / x.length;
  const scale = 1 / Math.sqrt(meanSquare + eps);
  return x.map((v, i) => v * scale * weight[i]);
}

/** Rotates each head of `x` in place. */
function rotate(x: Float64Array, position: number, { rope, headDim }: ModelConfig): void {
  const pairs = rope.dimensions / 2;
  for (let head = 0; head < x.length; head += headDim) {
    for (let i = 0; i < pairs; i++) {
      const angle = position * rope.inverseFrequencies[i];
      const cos = Math.cos(angle) * rope.magnitude;
      const sin = Math.sin(angle) * rope.magnitude;
      const [a, b] = rope.pairing === "halves" ? [head + i, head + i + pairs] : [head + 2 * i, head + 2 * i + 1];
      [x[a], x[b]] = [x[a] * cos - x[b] * sin, x[b] * cos + x[a] * sin];
    }
  }
}

/** Softmax attention of one query head: o [headDim] and the log-sum-exp of the scaled scores. */
function attendHead(query: ArrayLike<number>, { keys, values }: HeadTokens): { o: Float64Array; lse: number } {
  const dims = query.length;
  const o = new Float64Array(dims);
  if (keys.length === 0) return { o, lse: -Infinity };
  const scores = keys.map((key) => {
    let sum = 0;
    for (let d = 0; d < dims; d++) sum += query[d] * key[d];
    return sum / Math.sqrt(dims);
  });
  const most = scores.reduce((a, b) => Math.max(a, b));
  const weights = scores.map((score) => Math.exp(score - most));
  const total = weights.reduce((a, b) => a + b);
  for (const [i, weight] of weights.entries()) {
    for (let d = 0; d < dims; d++) o[d] += (weight / total) * values[i][d];
  }
  return { o, lse: most + Math.log(total) };
}

/** Runs a model in f64 on the calling thread. */
export class ReferenceDevice implements Device {
  /** See {@linkcode Device.info}. */
  readonly info: DeviceInfo;
  /** See {@linkcode Device.config}. */
  readonly config: ModelConfig;
  readonly #embedding: Matrix;
  readonly #head: Matrix;
  readonly #outputNorm: Float32Array;
  readonly #layers: readonly Layer[];
  /** [blocks][layers][kvHeads][blockTokens][key, value][headDim] */
  readonly #pool: Float32Array<ArrayBuffer>;
  #disposed = false;

  /** Reads all weights. */
  constructor(model: OpenModel, options: DeviceOptions) {
    const { config, weights } = model;
    const blockTokens = options.blockTokens ?? 16;
    const blockValues = config.layers * config.kvHeads * blockTokens * 2 * config.headDim;
    this.config = config;
    this.#embedding = matrixOf(weights.embedding);
    this.#head = weights.head === weights.embedding ? this.#embedding : matrixOf(weights.head);
    this.#outputNorm = readValues(weights.outputNorm);
    this.#layers = weights.layers.map(layerOf);
    this.#pool = new Float32Array(options.blocks * blockValues);
    this.info = {
      kind: "reference",
      description: "reference, f64, 1 thread",
      blockTokens,
      blocks: options.blocks,
      blockBytes: 4 * blockValues,
      weightBytes: model.weightBytes,
      kvType: options.kvType ?? "f16",
      activations: options.activations ?? "i8",
      maxStepTokens: options.maxStepTokens ?? 512,
      maxLogitRows: options.maxLogitRows ?? 64,
    };
  }

  /** See {@linkcode Device.step}. */
  step(batch: readonly StepSequence[]): StepOutput {
    this.#check();
    checkBatch(batch, this.info, this.config);
    const rows: Float32Array[] = [];
    for (const sequence of batch) {
      const wanted = logitRows(sequence);
      for (let i = 0; i < sequence.tokens.length; i++) {
        const x = this.#forward(sequence, i);
        if (i < sequence.tokens.length - wanted) continue;
        const normed = normalize(x, this.#outputNorm, this.config.normEps);
        rows.push(Float32Array.from(multiply(this.#head, normed)));
      }
    }
    return outputOf(rows);
  }

  /** See {@linkcode Device.attend}. */
  attend(layer: number, ranges: readonly AttendRange[]): AttentionPartial {
    this.#check();
    checkRanges(layer, ranges, { info: this.info, config: this.config });
    const { heads, headDim, kvHeads } = this.config;
    const o = new Float32Array(ranges.length * heads * headDim);
    const lse = new Float32Array(ranges.length * heads);
    for (const [index, { query, blocks, length }] of ranges.entries()) {
      for (let head = 0; head < heads; head++) {
        const kvHead = Math.floor(head / (heads / kvHeads));
        const q = query.subarray(head * headDim, (head + 1) * headDim);
        const part = attendHead(q, this.#tokens(blocks, { layer, kvHead, length }));
        o.set(part.o, (index * heads + head) * headDim);
        lse[index * heads + head] = part.lse;
      }
    }
    return { o, lse };
  }

  /** See {@linkcode Device.readBlock}. */
  readBlock(block: number): Uint8Array {
    return this.#block(block).slice();
  }

  /** See {@linkcode Device.writeBlock}. */
  writeBlock(block: number, bytes: Uint8Array): void {
    if (bytes.length !== this.info.blockBytes) {
      throw new RangeError(`Cannot write block ${block}: wanted ${this.info.blockBytes} bytes, got ${bytes.length}`);
    }
    this.#block(block).set(bytes);
  }

  /** Makes the device unusable; its memory goes with it. */
  [Symbol.dispose](): void {
    this.#disposed = true;
  }

  /** Residual stream after the last layer for token `index` of a sequence, whose keys and values are stored. */
  #forward(sequence: StepSequence, index: number): Float64Array {
    const { config } = this;
    const { hidden, heads, kvHeads, headDim, normEps } = config;
    const position = sequence.position + index;
    const token = sequence.tokens[index];
    let x = Float64Array.from(this.#embedding.values.subarray(token * hidden, (token + 1) * hidden));
    for (const [layer, weights] of this.#layers.entries()) {
      const h = normalize(x, weights.attentionNorm, normEps);
      const query = multiply(weights.query, h, weights.queryBias);
      const key = multiply(weights.key, h, weights.keyBias);
      const value = multiply(weights.value, h, weights.valueBias);
      rotate(query, position, config);
      rotate(key, position, config);
      const attended = new Float64Array(heads * headDim);
      for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
        const at = kvHead * headDim;
        const slot = this.#slot(sequence.blocks, { layer, kvHead, position });
        const round = (x: number) => roundKv(x, this.info.kvType);
        slot.key.set(key.subarray(at, at + headDim).map(round));
        slot.value.set(value.subarray(at, at + headDim).map(round));
        const tokens = this.#tokens(sequence.blocks, { layer, kvHead, length: position + 1 });
        const group = heads / kvHeads;
        for (let head = kvHead * group; head < (kvHead + 1) * group; head++) {
          const q = query.subarray(head * headDim, (head + 1) * headDim);
          attended.set(attendHead(q, tokens).o, head * headDim);
        }
      }
      const projected = multiply(weights.output, attended);
      x = x.map((v, i) => v + projected[i]);
      const m = normalize(x, weights.mlpNorm, normEps);
      const gate = multiply(weights.gate, m);
      const up = multiply(weights.up, m);
      const down = multiply(weights.down, gate.map((g, i) => (g / (1 + Math.exp(-g))) * up[i]));
      x = x.map((v, i) => v + down[i]);
    }
    return x;
  }

  #slot(
    blocks: ArrayLike<number>,
    { layer, kvHead, position }: { layer: number; kvHead: number; position: number },
  ): { key: Float32Array; value: Float32Array } {
    const { layers, kvHeads, headDim } = this.config;
    const { blockTokens } = this.info;
    const block = blocks[Math.floor(position / blockTokens)];
    const page = (block * layers + layer) * kvHeads + kvHead;
    const at = (page * blockTokens + position % blockTokens) * 2 * headDim;
    return {
      key: this.#pool.subarray(at, at + headDim),
      value: this.#pool.subarray(at + headDim, at + 2 * headDim),
    };
  }

  #tokens(
    blocks: ArrayLike<number>,
    { layer, kvHead, length }: { layer: number; kvHead: number; length: number },
  ): HeadTokens {
    const slots = Array.from({ length }, (_, position) => this.#slot(blocks, { layer, kvHead, position }));
    return { keys: slots.map((slot) => slot.key), values: slots.map((slot) => slot.value) };
  }

  #block(block: number): Uint8Array<ArrayBuffer> {
    this.#check();
    if (!Number.isInteger(block) || block < 0 || block >= this.info.blocks) {
      throw new RangeError(`Cannot access a block: wanted an id in 0..${this.info.blocks - 1}, got ${block}`);
    }
    return new Uint8Array(this.#pool.buffer, block * this.info.blockBytes, this.info.blockBytes);
  }

  #check(): void {
    if (this.#disposed) throw new ReferenceError("Cannot use the device: it was disposed");
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
