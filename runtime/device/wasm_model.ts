/**
 * A model in the memory of the kernel module: weights, KV pool and step buffers, laid out as `model.rs` reads them.
 *
 * @module
 */
import { type ActivationType, DTYPE_LAYOUT, type KvType } from "../../kernels/dtype.ts";
import { ACTIVATION_CODE, DTYPE_CODE } from "../../kernels/linear/spec.ts";
import type { WasmRuntime } from "../../kernels/wasm/instance.ts";
import type { ModelConfig, OpenModel, WeightTensor } from "../model/model.ts";
import { checkPool, layoutOf } from "./kv_layout.ts";
import { wasmBlockBytes, WasmKvStore } from "./wasm_kv_store.ts";

/** Bytes of the staging buffer through which stored weights pass. */
const STAGING_BYTES = 1 << 20;
/** Memory kept for stacks, tables and small allocations when sizes are checked up front. */
const RESERVE_BYTES = 32 << 20;
/** Code of 8-bit inputs without outlier handling (`matrix_set_input`). */
const INPUT_PLAIN = 0;
/** Most bytes of a 32-bit WebAssembly memory. */
const MEMORY_BYTES = 2 ** 32;

/** Sizes chosen when the device is opened. */
export interface WasmModelOptions {
  /** See `DeviceOptions`. */
  readonly blockTokens: number;
  /** See `DeviceOptions`. */
  readonly blocks: number;
  /** See `DeviceOptions`. */
  readonly kvType: KvType;
  /** See `DeviceOptions`. */
  readonly activations: ActivationType;
  /** See `DeviceOptions`. */
  readonly maxStepTokens: number;
  /** See `DeviceOptions`. */
  readonly maxLogitRows: number;
  /** Called while weights load. */
  readonly onProgress?: (loadedBytes: number, totalBytes: number) => void;
}

function megabytes(bytes: number): string {
  return `${Math.ceil(bytes / 2 ** 20)} MiB`;
}

/** Writes 32-bit fields one after the other into a fresh allocation. */
class Record32 {
  readonly #words: number[] = [];
  readonly #floats: { at: number; value: number }[] = [];

  u32(...values: number[]): this {
    this.#words.push(...values);
    return this;
  }

  f32(value: number): this {
    this.#floats.push({ at: this.#words.length, value });
    this.#words.push(0);
    return this;
  }

  write(runtime: WasmRuntime): number {
    const bytes = 4 * this.#words.length;
    const address = runtime.alloc(bytes);
    runtime.u32(address, this.#words.length).set(this.#words);
    const floats = runtime.f32(address, this.#words.length);
    for (const { at, value } of this.#floats) floats[at] = value;
    return address;
  }
}

/** Loads a model and keeps the addresses of its parts. */
export class WasmModel {
  /** Address of the step workspace. */
  readonly workspace: number;
  /** The KV pool. */
  readonly store: WasmKvStore;
  /** Bytes of the weights. */
  readonly weightBytes: number;
  /** Address of the logits, [maxLogitRows, vocab] f32. */
  readonly logits: number;
  /** Address of a layer's queries, [tokens, heads * headDim] f32. */
  readonly queries: number;
  /** Address of the row summaries. */
  readonly summaries: number;
  /** Bytes of one row summary: log-sum-exp, candidate ids, candidate logits. */
  readonly summaryBytes: number;
  readonly #runtime: WasmRuntime;
  readonly #staging: number;
  readonly #loaded = new Map<WeightTensor, number>();
  readonly #totalBytes: number;
  readonly #onProgress?: (loadedBytes: number, totalBytes: number) => void;
  #loadedBytes = 0;

  /**
   * Copies all weights into the module's memory.
   *
   * @throws {RangeError} when weights, KV pool and buffers exceed the memory, naming the sizes.
   */
  constructor(runtime: WasmRuntime, model: OpenModel, options: WasmModelOptions) {
    const { config, weights } = model;
    this.#runtime = runtime;
    this.#totalBytes = model.weightBytes;
    this.#onProgress = options.onProgress;
    const matrices = [
      weights.embedding,
      ...(weights.head === weights.embedding ? [] : [weights.head]),
      ...weights.layers.flatMap((l) => [l.query, l.key, l.value, l.output, l.gate, l.up, l.down]),
    ];
    this.weightBytes = matrices.reduce((sum, m) => sum + this.#matrixBytes(m), 0);
    const pool = { layout: layoutOf(config, options), blocks: options.blocks };
    checkPool(pool);
    this.#checkFit(config, { ...options, kvBytes: options.blocks * wasmBlockBytes(runtime, pool.layout) });

    runtime.preferHugePages(this.weightBytes);
    this.#staging = runtime.alloc(STAGING_BYTES);
    const vectors = (vector: WeightTensor | undefined) => vector === undefined ? 0 : this.#vector(vector);
    const layers = new Record32();
    for (const layer of weights.layers) {
      layers.u32(
        vectors(layer.attentionNorm),
        this.#matrix(layer.query),
        this.#matrix(layer.key),
        this.#matrix(layer.value),
        vectors(layer.queryBias),
        vectors(layer.keyBias),
        vectors(layer.valueBias),
        this.#plainInputs(this.#matrix(layer.output)),
        vectors(layer.mlpNorm),
        this.#matrix(layer.gate),
        this.#matrix(layer.up),
        this.#matrix(layer.down),
      );
    }
    const layerTable = layers.write(runtime);
    const embedding = this.#matrix(weights.embedding);
    const head = this.#matrix(weights.head);
    const outputNorm = this.#vector(weights.outputNorm);
    runtime.free(this.#staging, STAGING_BYTES);

    this.store = new WasmKvStore(runtime, pool);
    const { rope } = config;
    const frequencies = runtime.alloc(8 * rope.inverseFrequencies.length);
    new Float64Array(runtime.bytes.buffer, frequencies, rope.inverseFrequencies.length).set(rope.inverseFrequencies);
    const description = new Record32()
      .u32(config.layers, config.hidden, config.heads, config.kvHeads, config.headDim, config.intermediate)
      .u32(config.vocab).f32(config.normEps)
      .u32(rope.dimensions, rope.pairing === "halves" ? 1 : 0).f32(rope.magnitude).u32(frequencies)
      .u32(ACTIVATION_CODE[options.activations], options.maxStepTokens, options.maxLogitRows)
      .u32(embedding, layerTable, outputNorm, head, this.store.pool)
      .write(runtime);
    const { exports } = runtime;
    this.workspace = exports.workspace_new(runtime.team, description);
    if (this.workspace === 0) throw new RangeError("Cannot allocate the step buffers: the memory is used up");
    this.queries = exports.workspace_queries(this.workspace);
    this.logits = exports.workspace_logits(this.workspace);
    this.summaries = exports.workspace_summaries(this.workspace);
    this.summaryBytes = exports.workspace_summary_bytes();
  }

  #checkFit(config: ModelConfig, options: WasmModelOptions & { readonly kvBytes: number }): void {
    const { kvBytes } = options;
    const perToken = 2 * config.hidden + 3 * config.heads * config.headDim + 2 * config.kvHeads * config.headDim +
      4 * config.intermediate;
    const stepBytes = 4 * (options.maxStepTokens * perToken + options.maxLogitRows * config.vocab);
    if (this.weightBytes + kvBytes + stepBytes + RESERVE_BYTES > MEMORY_BYTES) {
      throw new RangeError(
        `Cannot load the model: weights ${megabytes(this.weightBytes)} and KV pool ${megabytes(kvBytes)} plus ` +
          `${megabytes(stepBytes + RESERVE_BYTES)} of step buffers exceed the 4096 MiB of a WASM device`,
      );
    }
  }

  #matrixBytes(tensor: WeightTensor): number {
    return this.#runtime.exports.matrix_bytes(DTYPE_CODE[tensor.dtype], tensor.rows, tensor.cols);
  }

  #matrix(tensor: WeightTensor): number {
    const known = this.#loaded.get(tensor);
    if (known !== undefined) return known;
    const { exports } = this.#runtime;
    const matrix = exports.matrix_new(DTYPE_CODE[tensor.dtype], tensor.rows, tensor.cols);
    if (matrix === 0) {
      throw new RangeError(
        `Cannot load tensor "${tensor.name}": its ${megabytes(this.#matrixBytes(tensor))} do not fit into the memory`,
      );
    }
    const layout = DTYPE_LAYOUT[tensor.dtype];
    const rowBytes = (tensor.cols / layout.elements) * layout.bytes;
    // A slab holds whole groups of 16 rows, so that interleaved rows are written together.
    const slabRows = Math.max(16, Math.floor(STAGING_BYTES / rowBytes / 16) * 16);
    const slabBytes = slabRows * rowBytes;
    const slab = slabBytes > STAGING_BYTES ? this.#runtime.alloc(slabBytes) : this.#staging;
    for (let row = 0; row < tensor.rows; row += slabRows) {
      const count = Math.min(slabRows, tensor.rows - row);
      tensor.readInto(this.#runtime.u8(slab, count * rowBytes), row * rowBytes);
      exports.matrix_load(matrix, row, count, slab);
      this.#progress(count * rowBytes);
    }
    if (slab !== this.#staging) this.#runtime.free(slab, slabBytes);
    this.#loaded.set(tensor, matrix);
    return matrix;
  }

  /** The inputs of attention outputs have no outliers worth a second rounding (see `docs/perf`). */
  #plainInputs(matrix: number): number {
    this.#runtime.exports.matrix_set_input(matrix, INPUT_PLAIN);
    return matrix;
  }

  #vector(tensor: WeightTensor): number {
    const address = this.#runtime.alloc(4 * tensor.cols);
    tensor.readInto(this.#runtime.u8(address, 4 * tensor.cols), 0);
    this.#progress(4 * tensor.cols);
    return address;
  }

  #progress(bytes: number): void {
    this.#loadedBytes += bytes;
    this.#onProgress?.(this.#loadedBytes, this.#totalBytes);
  }
}
