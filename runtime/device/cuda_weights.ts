/**
 * The weights of a model in the memory of a GPU: matrices [out, in] in bf16, packed or both, f32 vectors, in one allocation.
 * Query, key and value are one matrix, gate and up another.
 *
 * @module
 */
import type { CudaContext, CudaStream, DeviceBuffer, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { DType } from "../../kernels/dtype.ts";
import { RECORD_COLS, STRIP_ROWS } from "../../kernels/linear/cuda_layout.ts";
import type { PackedLinear } from "../../kernels/linear/linear_packed_cuda.ts";
import type { WeightKernels } from "../../kernels/weight_bf16/weight_bf16_cuda.ts";
import type { LayerWeights, ModelConfig, ModelWeights, OpenModel } from "../model/model.ts";
import { addressAt } from "./cuda_address.ts";
import {
  canStayPacked,
  type CudaMatrix,
  fullBytes,
  type KeptForm,
  leastBytes,
  mapMatrix,
  type MatrixSource,
  placeMatrix,
} from "./cuda_matrix.ts";
import { CudaUpload } from "./cuda_upload.ts";

/** Every weight begins at a multiple of this. */
const ALIGNMENT = 1024;
/** Deviation of random embeddings. */
const RANDOM_EMBEDDING = 1;

/** The weights of one transformer block. `Place` is an address, or bytes from the start. */
export interface CudaLayerWeights<Place = DevicePtr> {
  /** f32 [hidden] */
  readonly attentionNorm: Place;
  /** [(heads + 2 kvHeads) headDim, hidden]: query, key, value. */
  readonly qkv: CudaMatrix<Place>;
  /** f32 [(heads + 2 kvHeads) headDim], when the model has biases. */
  readonly qkvBias?: Place;
  /** [hidden, heads headDim] */
  readonly output: CudaMatrix<Place>;
  /** f32 [hidden] */
  readonly mlpNorm: Place;
  /** [2 intermediate, hidden]: gate, up. */
  readonly gateUp: CudaMatrix<Place>;
  /** [hidden, intermediate] */
  readonly down: CudaMatrix<Place>;
}

/** The places of all weights, bytes from the start. */
export interface WeightPlaces {
  /** Bytes of the whole. */
  readonly bytes: number;
  /** bf16 [vocab, hidden] */
  readonly embedding: number;
  /** [vocab, hidden], always in bf16 too: the embedding's when tied. */
  readonly head: CudaMatrix<number>;
  /** f32 [hidden] */
  readonly outputNorm: number;
  /** Transformer blocks. */
  readonly layers: readonly CudaLayerWeights<number>[];
  /** Where a matrix that is kept packed alone is expanded, when there is one: room for the largest. */
  readonly expanded?: number;
}

/** Types of a layer's matrices in the file. */
export interface LayerTypes {
  /** Query, key and value. */
  readonly qkv: readonly [DType, DType, DType];
  /** Output projection. */
  readonly output: DType;
  /** Gate and up. */
  readonly gateUp: readonly [DType, DType];
  /** Down. */
  readonly down: DType;
}

/** Types of a model's matrices in the file. */
export interface StoredTypes {
  /** Those of each layer, or of all of them alike. */
  readonly layers: readonly LayerTypes[];
  /** The head. */
  readonly head: DType;
}

/** Variants of a model that decide which weights there are. */
export interface WeightVariant {
  /** Whether the head is the embedding. */
  readonly tied: boolean;
  /** Whether query, key and value have biases. */
  readonly biases: boolean;
  /** How the file has the matrices. @default {bf16} */
  readonly stored?: StoredTypes;
  /** What becomes of packed matrices. @default {"bf16"} */
  readonly keep?: KeptForm;
}

/** The sources of a layer's matrices. */
function layerSources(
  { hidden, heads, kvHeads, headDim, intermediate }: ModelConfig,
  { qkv, output, gateUp, down }: LayerTypes,
): Readonly<Record<"qkv" | "output" | "gateUp" | "down", MatrixSource>> {
  const rows = [heads * headDim, kvHeads * headDim, kvHeads * headDim];
  return {
    qkv: { tensors: qkv.map((dtype, i) => ({ dtype, rows: rows[i] })), cols: hidden },
    output: { tensors: [{ dtype: output, rows: hidden }], cols: heads * headDim },
    gateUp: { tensors: gateUp.map((dtype) => ({ dtype, rows: intermediate })), cols: hidden, paired: true },
    down: { tensors: [{ dtype: down, rows: hidden }], cols: intermediate },
  };
}

/** Every type is bf16. */
const BF16_LAYER: LayerTypes = {
  qkv: ["BF16", "BF16", "BF16"],
  output: "BF16",
  gateUp: ["BF16", "BF16"],
  down: "BF16",
};

/** Types of a model's matrices in its file. */
export function storedTypes({ layers, head }: ModelWeights): StoredTypes {
  return {
    layers: layers.map(({ query, key, value, output, gate, up, down }) => ({
      qkv: [query.dtype, key.dtype, value.dtype],
      output: output.dtype,
      gateUp: [gate.dtype, up.dtype],
      down: down.dtype,
    })),
    head: head.dtype,
  };
}

/** A model whose matrices are all of one type. */
export function uniformTypes(dtype: DType): StoredTypes {
  return { layers: [{ qkv: [dtype, dtype, dtype], output: dtype, gateUp: [dtype, dtype], down: dtype }], head: dtype };
}

/** Rows of the matrix of query, key and value. */
export function qkvRows({ heads, kvHeads, headDim }: Pick<ModelConfig, "heads" | "kvHeads" | "headDim">): number {
  return (heads + 2 * kvHeads) * headDim;
}

/** The places of the weights of a model of these sizes. */
export function weightPlaces(
  config: ModelConfig,
  { tied, biases, stored, keep = "bf16" }: WeightVariant,
): WeightPlaces {
  const { hidden, vocab } = config;
  let next = 0;
  const take = (bytes: number): number => {
    const at = next;
    next = Math.ceil((next + bytes) / ALIGNMENT) * ALIGNMENT;
    return at;
  };
  const vector = (size: number) => take(4 * size);
  const embedding = take(2 * vocab * hidden);
  let expandedBytes = 0;
  const matrix = (source: MatrixSource): CudaMatrix<number> => {
    const placed = placeMatrix(source, keep, take);
    if (placed.full === undefined) expandedBytes = Math.max(expandedBytes, fullBytes(source));
    return placed;
  };
  const layers = Array.from({ length: config.layers }, (_, index): CudaLayerWeights<number> => {
    const types = stored === undefined ? BF16_LAYER : stored.layers[index % stored.layers.length];
    const { qkv, output, gateUp, down } = layerSources(config, types);
    return {
      attentionNorm: vector(hidden),
      qkv: matrix(qkv),
      ...(biases && { qkvBias: vector(qkvRows(config)) }),
      output: matrix(output),
      mlpNorm: vector(hidden),
      gateUp: matrix(gateUp),
      down: matrix(down),
    };
  });
  const outputNorm = vector(hidden);
  const full = tied ? embedding : take(2 * vocab * hidden);
  // Room to expand the head would take what the head in bf16 does.
  const headSource = { tensors: [{ dtype: stored?.head ?? "BF16", rows: vocab }], cols: hidden };
  const head = keep === "bf16" || !canStayPacked(headSource)
    ? { rows: vocab, cols: hidden, paired: false, full }
    : { ...placeMatrix(headSource, "packed", take), full };
  const expanded = expandedBytes > 0 ? take(expandedBytes) : undefined;
  return { bytes: next, embedding, head, outputNorm, layers, ...(expanded !== undefined && { expanded }) };
}

/** Bytes of weights that a step of few tokens reads: all matrices once in their smallest form, and the vectors. */
export function readBytes({ layers, head }: Pick<WeightPlaces, "layers" | "head">, { hidden }: ModelConfig): number {
  const matrices = [...layers.flatMap(({ qkv, output, gateUp, down }) => [qkv, output, gateUp, down]), head];
  return matrices.reduce((sum, matrix) => sum + leastBytes(matrix), 4 * hidden * (2 * layers.length + 1));
}

/** Bytes of a model's layers in bf16. */
export function fullLayerBytes(config: ModelConfig): number {
  const sources = Object.values(layerSources(config, BF16_LAYER));
  return config.layers * sources.reduce((sum, source) => sum + fullBytes(source), 0);
}

/** Whether any matrix of a model can stay packed. */
export function anyPacked(config: ModelConfig, { layers, head }: StoredTypes): boolean {
  return layers.some((types) => Object.values(layerSources(config, types)).some(canStayPacked)) ||
    canStayPacked({ tensors: [{ dtype: head, rows: config.vocab }], cols: config.hidden });
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
  /** What packs matrices; wanted where some stay packed. */
  readonly packing?: PackedLinear;
}

/** The weights of one model; they own their memory. */
export class CudaWeights implements Disposable {
  /** Bytes they take. */
  readonly bytes: number;
  /** bf16 [vocab, hidden] */
  readonly embedding: DevicePtr;
  /** [vocab, hidden] */
  readonly head: CudaMatrix<DevicePtr>;
  /** f32 [hidden] */
  readonly outputNorm: DevicePtr;
  /** Transformer blocks in order. */
  readonly layers: readonly CudaLayerWeights[];
  /** Where matrices that are kept packed alone are expanded, one at a time; undefined when there are none. */
  readonly expanded?: DevicePtr;
  readonly #buffer: DeviceBuffer;

  /** Takes over memory that is filled. */
  constructor(buffer: DeviceBuffer, places: WeightPlaces) {
    const at = (place: number) => buffer.at(place);
    this.#buffer = buffer;
    this.bytes = places.bytes;
    this.embedding = at(places.embedding);
    this.head = mapMatrix(places.head, at);
    this.outputNorm = at(places.outputNorm);
    if (places.expanded !== undefined) this.expanded = at(places.expanded);
    this.layers = places.layers.map((layer) => ({
      attentionNorm: at(layer.attentionNorm),
      qkv: mapMatrix(layer.qkv, at),
      ...(layer.qkvBias !== undefined && { qkvBias: at(layer.qkvBias) }),
      output: mapMatrix(layer.output, at),
      mlpNorm: at(layer.mlpNorm),
      gateUp: mapMatrix(layer.gateUp, at),
      down: mapMatrix(layer.down, at),
    }));
  }

  /**
   * Copies a model's weights to the GPU and brings them into the forms they are kept in.
   *
   * @throws {CudaError} when they do not fit into its memory.
   */
  static load(
    model: OpenModel,
    options: CudaWeightsOptions & {
      readonly keep?: KeptForm;
      readonly onProgress?: (loadedBytes: number, totalBytes: number) => void;
    },
  ): CudaWeights {
    const { config, weights } = model;
    const { context, stream, keep } = options;
    const tied = weights.head === weights.embedding;
    const places = weightPlaces(config, {
      tied,
      biases: weights.layers.some(hasBias),
      stored: storedTypes(weights),
      keep,
    });
    using opened = new DisposableStack();
    const buffer = opened.use(context.alloc(places.bytes));
    using upload = new CudaUpload({ ...options, totalBytes: model.weightBytes });
    // Records' bytes beyond their matrix are 0.
    stream.fill(buffer.address, 0, places.bytes);
    const at = (place: number) => buffer.at(place);
    upload.matrix(weights.embedding, { full: at(places.embedding) });
    const { full, ...packedHead } = places.head;
    if (!tied) upload.matrices([weights.head], mapMatrix(places.head, at));
    else if (full !== undefined && packedHead.packed) upload.matrices([weights.head], mapMatrix(packedHead, at));
    upload.vector(weights.outputNorm, buffer.at(places.outputNorm));
    const { heads, kvHeads, headDim } = config;
    for (const [index, layer] of weights.layers.entries()) {
      const place = places.layers[index];
      upload.vector(layer.attentionNorm, buffer.at(place.attentionNorm));
      upload.vector(layer.mlpNorm, buffer.at(place.mlpNorm));
      upload.matrices([layer.query, layer.key, layer.value], mapMatrix(place.qkv, at));
      upload.matrices([layer.output], mapMatrix(place.output, at));
      upload.matrices([layer.gate, layer.up], mapMatrix(place.gateUp, at));
      upload.matrices([layer.down], mapMatrix(place.down, at));
      if (place.qkvBias === undefined) continue;
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
    const { context, stream, kernels } = options;
    const { hidden, vocab } = config;
    const places = weightPlaces(config, options);
    using opened = new DisposableStack();
    const buffer = opened.use(context.alloc(places.bytes));
    stream.fill(buffer.address, 0, places.bytes);
    let seed = options.seed * 2 ** 20;
    const full = (at: number, count: number, scale: number) => {
      kernels.randomMatrix(stream, { to: buffer.at(at), count, seed: seed++, scale });
    };
    const matrix = (placed: CudaMatrix<number>) => {
      const scale = 1 / Math.sqrt(placed.cols);
      for (const { dtype, rows, at } of placed.packed ?? []) {
        const strips = Math.ceil(rows / (placed.paired ? STRIP_ROWS / 2 : STRIP_ROWS));
        const records = strips * Math.ceil(placed.cols / RECORD_COLS);
        kernels.randomRecords(stream, { dtype, to: buffer.at(at), records, seed: seed++, scale });
      }
      if (placed.full === undefined) return;
      if (placed.packed) {
        unpackMatrix(options.packing, stream, {
          matrix: mapMatrix(placed, (at) => buffer.at(at)),
          to: buffer.at(placed.full),
        });
      } else full(placed.full, placed.rows * placed.cols * (placed.paired ? 2 : 1), scale);
    };
    const vector = (at: number, count: number) => {
      kernels.randomVector(stream, { to: buffer.at(at), count, seed: seed++ });
    };
    full(places.embedding, vocab * hidden, RANDOM_EMBEDDING);
    if (places.head.full !== places.embedding || places.head.packed) matrix(places.head);
    vector(places.outputNorm, hidden);
    for (const layer of places.layers) {
      vector(layer.attentionNorm, hidden);
      vector(layer.mlpNorm, hidden);
      matrix(layer.qkv);
      if (layer.qkvBias !== undefined) vector(layer.qkvBias, qkvRows(config));
      matrix(layer.output);
      matrix(layer.gateUp);
      matrix(layer.down);
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

/** Enqueues the expansion of a packed matrix to bf16 at `to`. @throws {ReferenceError} when nothing is there to do it. */
export function unpackMatrix(
  packing: PackedLinear | undefined,
  stream: CudaStream,
  { matrix: { cols, paired, packed = [] }, to }: { readonly matrix: CudaMatrix<DevicePtr>; readonly to: DevicePtr },
): void {
  if (packing === undefined) throw new ReferenceError("Cannot expand packed weights: there are no kernels for it");
  for (const { dtype, first, rows, at } of packed) {
    const shape = { dtype, rows, cols, from: at };
    if (!paired) {
      packing.unpack(stream, { ...shape, to: addressAt(to, 2 * first * cols) });
      continue;
    }
    packing.unpack(stream, { ...shape, to, half: "first" });
    packing.unpack(stream, { ...shape, to: addressAt(to, 2 * rows * cols), half: "second" });
  }
}
