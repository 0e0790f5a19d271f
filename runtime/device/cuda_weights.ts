/**
 * The weights of a model in the memory of a GPU: bf16 matrices [out, in], f32 vectors, in one allocation. Query, key and
 * value are one matrix, gate and up another.
 *
 * @module
 */
import type { CudaContext, CudaStream, DeviceBuffer, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { WeightKernels } from "../../kernels/weight_bf16/weight_bf16_cuda.ts";
import type { LayerWeights, ModelConfig, OpenModel, WeightTensor } from "../model/model.ts";
import { CudaUpload } from "./cuda_upload.ts";

/** Every weight begins at a multiple of this. */
const ALIGNMENT = 1024;
/** Deviation of random embeddings. */
const RANDOM_EMBEDDING = 1;

/** Addresses of the weights of one transformer block. */
export interface CudaLayerWeights {
  /** f32 [hidden] */
  readonly attentionNorm: DevicePtr;
  /** bf16 [(heads + 2 kvHeads) headDim, hidden]: query, key, value. */
  readonly qkv: DevicePtr;
  /** f32 [(heads + 2 kvHeads) headDim], when the model has biases. */
  readonly qkvBias?: DevicePtr;
  /** bf16 [hidden, heads headDim] */
  readonly output: DevicePtr;
  /** f32 [hidden] */
  readonly mlpNorm: DevicePtr;
  /** bf16 [2 intermediate, hidden]: gate, up. */
  readonly gateUp: DevicePtr;
  /** bf16 [hidden, intermediate] */
  readonly down: DevicePtr;
}

/** Where weights lie before they have an address: bytes from the start. */
interface LayerPlaces {
  readonly attentionNorm: number;
  readonly qkv: number;
  readonly qkvBias?: number;
  readonly output: number;
  readonly mlpNorm: number;
  readonly gateUp: number;
  readonly down: number;
}

/** The places of all weights. */
export interface WeightPlaces {
  /** Bytes of the whole. */
  readonly bytes: number;
  /** bf16 [vocab, hidden] */
  readonly embedding: number;
  /** bf16 [vocab, hidden]; the embedding's place when tied. */
  readonly head: number;
  /** f32 [hidden] */
  readonly outputNorm: number;
  /** Transformer blocks. */
  readonly layers: readonly LayerPlaces[];
}

/** Variants of a model that decide which weights there are. */
export interface WeightVariant {
  /** Whether the head is the embedding. */
  readonly tied: boolean;
  /** Whether query, key and value have biases. */
  readonly biases: boolean;
}

/** Rows of the matrix of query, key and value. */
export function qkvRows({ heads, kvHeads, headDim }: Pick<ModelConfig, "heads" | "kvHeads" | "headDim">): number {
  return (heads + 2 * kvHeads) * headDim;
}

/** The places of the weights of a model of these sizes. */
export function weightPlaces(config: ModelConfig, { tied, biases }: WeightVariant): WeightPlaces {
  const { hidden, heads, headDim, intermediate, vocab } = config;
  let next = 0;
  const take = (bytes: number): number => {
    const at = next;
    next = Math.ceil((next + bytes) / ALIGNMENT) * ALIGNMENT;
    return at;
  };
  const matrix = (rows: number, cols: number) => take(2 * rows * cols);
  const vector = (size: number) => take(4 * size);
  const embedding = matrix(vocab, hidden);
  const layers = Array.from({ length: config.layers }, (): LayerPlaces => ({
    attentionNorm: vector(hidden),
    qkv: matrix(qkvRows(config), hidden),
    ...(biases && { qkvBias: vector(qkvRows(config)) }),
    output: matrix(hidden, heads * headDim),
    mlpNorm: vector(hidden),
    gateUp: matrix(2 * intermediate, hidden),
    down: matrix(hidden, intermediate),
  }));
  const outputNorm = vector(hidden);
  const head = tied ? embedding : matrix(vocab, hidden);
  return { bytes: next, embedding, head, outputNorm, layers };
}

function hasBias({ queryBias, keyBias, valueBias }: LayerWeights): boolean {
  return queryBias !== undefined || keyBias !== undefined || valueBias !== undefined;
}

/** What weights are made with. */
export interface CudaWeightsOptions {
  /** The GPU. */
  readonly context: CudaContext;
  /** Where copies and conversions run. */
  readonly stream: CudaStream;
  /** Conversions. */
  readonly kernels: WeightKernels;
}

/** The weights of one model; they own their memory. */
export class CudaWeights implements Disposable {
  /** Bytes they take. */
  readonly bytes: number;
  /** bf16 [vocab, hidden] */
  readonly embedding: DevicePtr;
  /** bf16 [vocab, hidden] */
  readonly head: DevicePtr;
  /** f32 [hidden] */
  readonly outputNorm: DevicePtr;
  /** Transformer blocks in order. */
  readonly layers: readonly CudaLayerWeights[];
  readonly #buffer: DeviceBuffer;

  /** Takes over memory that is filled. */
  constructor(buffer: DeviceBuffer, places: WeightPlaces) {
    this.#buffer = buffer;
    this.bytes = places.bytes;
    this.embedding = buffer.at(places.embedding);
    this.head = buffer.at(places.head);
    this.outputNorm = buffer.at(places.outputNorm);
    this.layers = places.layers.map((layer) => ({
      attentionNorm: buffer.at(layer.attentionNorm),
      qkv: buffer.at(layer.qkv),
      ...(layer.qkvBias !== undefined && { qkvBias: buffer.at(layer.qkvBias) }),
      output: buffer.at(layer.output),
      mlpNorm: buffer.at(layer.mlpNorm),
      gateUp: buffer.at(layer.gateUp),
      down: buffer.at(layer.down),
    }));
  }

  /**
   * Copies a model's weights to the GPU and rounds them to bf16.
   *
   * @throws {CudaError} when they do not fit into its memory.
   */
  static load(
    model: OpenModel,
    options: CudaWeightsOptions & { readonly onProgress?: (loadedBytes: number, totalBytes: number) => void },
  ): CudaWeights {
    const { config, weights } = model;
    const { context, stream } = options;
    const places = weightPlaces(config, {
      tied: weights.head === weights.embedding,
      biases: weights.layers.some(hasBias),
    });
    using opened = new DisposableStack();
    const buffer = opened.use(context.alloc(places.bytes));
    using upload = new CudaUpload({ ...options, totalBytes: model.weightBytes });
    const matrices = (at: number, tensors: readonly WeightTensor[]) => {
      for (const tensor of tensors) {
        upload.matrix(tensor, buffer.at(at));
        at += 2 * tensor.rows * tensor.cols;
      }
    };
    matrices(places.embedding, [weights.embedding]);
    if (weights.head !== weights.embedding) matrices(places.head, [weights.head]);
    upload.vector(weights.outputNorm, buffer.at(places.outputNorm));
    const { heads, kvHeads, headDim } = config;
    for (const [index, layer] of weights.layers.entries()) {
      const place = places.layers[index];
      upload.vector(layer.attentionNorm, buffer.at(place.attentionNorm));
      upload.vector(layer.mlpNorm, buffer.at(place.mlpNorm));
      matrices(place.qkv, [layer.query, layer.key, layer.value]);
      matrices(place.output, [layer.output]);
      matrices(place.gateUp, [layer.gate, layer.up]);
      matrices(place.down, [layer.down]);
      if (place.qkvBias === undefined) continue;
      stream.fill(buffer.at(place.qkvBias), 0, 4 * qkvRows(config));
      const biases = [[layer.queryBias, 0], [layer.keyBias, heads], [layer.valueBias, heads + kvHeads]] as const;
      for (const [bias, firstHead] of biases) {
        if (bias !== undefined) upload.vector(bias, buffer.at(place.qkvBias + 4 * firstHead * headDim));
      }
    }
    upload.finish();
    const loaded = new CudaWeights(buffer, places);
    opened.move();
    return loaded;
  }

  /**
   * Weights with random numbers, made on the GPU: as large as a model's, for measurements.
   *
   * @throws {CudaError} when they do not fit into its memory.
   */
  static random(
    config: ModelConfig,
    options: CudaWeightsOptions & WeightVariant & { readonly seed: number },
  ): CudaWeights {
    const { context, stream, kernels, tied, biases } = options;
    const { hidden, heads, headDim, intermediate, vocab } = config;
    const places = weightPlaces(config, { tied, biases });
    using opened = new DisposableStack();
    const buffer = opened.use(context.alloc(places.bytes));
    let seed = options.seed * 2 ** 20;
    const matrix = (at: number, rows: number, cols: number, scale = 1 / Math.sqrt(cols)) => {
      kernels.randomMatrix(stream, { to: buffer.at(at), count: rows * cols, seed: seed++, scale });
    };
    const vector = (at: number, count: number) => {
      kernels.randomVector(stream, { to: buffer.at(at), count, seed: seed++ });
    };
    matrix(places.embedding, vocab, hidden, RANDOM_EMBEDDING);
    if (places.head !== places.embedding) matrix(places.head, vocab, hidden);
    vector(places.outputNorm, hidden);
    for (const layer of places.layers) {
      vector(layer.attentionNorm, hidden);
      vector(layer.mlpNorm, hidden);
      matrix(layer.qkv, qkvRows(config), hidden);
      if (layer.qkvBias !== undefined) vector(layer.qkvBias, qkvRows(config));
      matrix(layer.output, hidden, heads * headDim);
      matrix(layer.gateUp, 2 * intermediate, hidden);
      matrix(layer.down, hidden, intermediate);
    }
    stream.synchronize();
    const made = new CudaWeights(buffer, places);
    opened.move();
    return made;
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#buffer[Symbol.dispose]();
  }
}
