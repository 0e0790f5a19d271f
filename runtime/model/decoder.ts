/**
 * Builds and checks a decoder from what a family read out of a file.
 *
 * @module
 */
import { F32Vector } from "../weights/f32_vector.ts";
import { ModelFileError } from "../weights/model_file_error.ts";
import type { StoredTensor } from "../weights/stored_tensor.ts";
import type { Decoder } from "./family.ts";
import type { LayerWeights, WeightTensor } from "./model.ts";
import { ropeConfig, type RopeInit } from "./rope.ts";

/** Most transformer blocks. */
export const MAX_LAYERS = 1024;
/** Most query heads. */
export const MAX_HEADS = 1024;
/** Widest residual stream, head and MLP. */
export const MAX_WIDTH: number = 2 ** 20;
/** Most rows of the embedding. */
export const MAX_VOCAB: number = 2 ** 22;
/** Longest context a file may claim, tokens. */
export const MAX_CONTEXT: number = 2 ** 31 - 1;

/** Sizes and constants as the file states them. */
export interface DecoderSizes {
  /** Transformer blocks. */
  readonly layers: number;
  /** Width of the residual stream. */
  readonly hidden: number;
  /** Query heads. */
  readonly heads: number;
  /** Key and value heads. */
  readonly kvHeads: number;
  /** Width of one head; `hidden / heads` when the file does not say. */
  readonly headDim: number | undefined;
  /** Width of the MLP. */
  readonly intermediate: number;
  /** Vocabulary size, when the file says. */
  readonly vocab: number | undefined;
  /** Context length. */
  readonly contextLength: number;
  /** Epsilon of the norms. */
  readonly normEps: number;
}

/** Names of the tensors of one block in the file. */
export type LayerNames = { readonly [Weight in keyof Required<LayerWeights>]: string };

/** How a file spells what {@linkcode buildDecoder} needs. */
export interface DecoderSpec {
  /** Family, for {@linkcode ModelConfig.family}. */
  readonly family: string;
  /** File name, for messages. */
  readonly file: string;
  /** All tensors of the file by name. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Sizes and constants. */
  readonly sizes: DecoderSizes;
  /** Field of the file that states each size, for messages. */
  readonly fields: { readonly [Size in keyof DecoderSizes]: string };
  /** Rotary embedding for heads of `headDim`, and the field it is stated in. */
  readonly rope: (headDim: number) => RopeInit;
  /** Field of the file that states the rotary embedding, for messages. */
  readonly ropeField: string;
  /** Names of the tensors outside of the blocks. */
  readonly names: { readonly embedding: string; readonly outputNorm: string; readonly head: string };
  /** Names of the tensors of block `layer`. */
  readonly layerNames: (layer: number) => LayerNames;
  /** Whether the head is the embedding. `auto`: when the file has no head. */
  readonly tied: boolean | "auto";
  /** Tensors that may be there and are not weights. */
  readonly ignored: (name: string) => boolean;
}

/**
 * Checks sizes, the presence and shape of every tensor, and that no tensor is left over.
 *
 * @throws {ModelFileError} naming the field or tensor that is wrong.
 */
export function buildDecoder(spec: DecoderSpec): Decoder {
  const { layers, hidden, heads, kvHeads, intermediate, contextLength, normEps } = spec.sizes;
  checkSizes(spec);
  const headDim = spec.sizes.headDim ?? hidden / heads;
  const rope = checkedRope(spec, headDim);
  const shelf = new TensorShelf(spec);

  const embedding = shelf.take(spec.names.embedding);
  const vocab = spec.sizes.vocab ?? embedding.rows;
  shelf.checkShape(embedding, { rows: vocab, cols: hidden, because: spec.fields.vocab });
  const tied = spec.tied === "auto" ? !spec.tensors.has(spec.names.head) : spec.tied;
  const head = tied ? embedding : shelf.matrix(spec.names.head, { rows: vocab, cols: hidden });
  const outputNorm = shelf.vector(spec.names.outputNorm, hidden);
  const blocks = Array.from({ length: layers }, (_, layer): LayerWeights => {
    const names = spec.layerNames(layer);
    const queryBias = shelf.optionalVector(names.queryBias, heads * headDim);
    const keyBias = shelf.optionalVector(names.keyBias, kvHeads * headDim);
    const valueBias = shelf.optionalVector(names.valueBias, kvHeads * headDim);
    return {
      attentionNorm: shelf.vector(names.attentionNorm, hidden),
      query: shelf.matrix(names.query, { rows: heads * headDim, cols: hidden }),
      key: shelf.matrix(names.key, { rows: kvHeads * headDim, cols: hidden }),
      value: shelf.matrix(names.value, { rows: kvHeads * headDim, cols: hidden }),
      ...(queryBias && { queryBias }),
      ...(keyBias && { keyBias }),
      ...(valueBias && { valueBias }),
      output: shelf.matrix(names.output, { rows: hidden, cols: heads * headDim }),
      mlpNorm: shelf.vector(names.mlpNorm, hidden),
      gate: shelf.matrix(names.gate, { rows: intermediate, cols: hidden }),
      up: shelf.matrix(names.up, { rows: intermediate, cols: hidden }),
      down: shelf.matrix(names.down, { rows: hidden, cols: intermediate }),
    };
  });
  shelf.checkEmpty((name) => spec.ignored(name) || (tied && name === spec.names.head));
  return {
    config: {
      family: spec.family,
      layers,
      hidden,
      heads,
      kvHeads,
      headDim,
      intermediate,
      vocab,
      contextLength,
      normEps,
      rope,
    },
    weights: { embedding, layers: blocks, outputNorm, head },
  };
}

function checkSizes({ file, sizes, fields }: DecoderSpec): void {
  const error = (size: keyof DecoderSizes, problem: string) =>
    new ModelFileError(file, { field: fields[size], problem });
  const limits = {
    layers: MAX_LAYERS,
    hidden: MAX_WIDTH,
    heads: MAX_HEADS,
    kvHeads: MAX_HEADS,
    headDim: MAX_WIDTH,
    intermediate: MAX_WIDTH,
    vocab: MAX_VOCAB,
    contextLength: MAX_CONTEXT,
  } as const;
  for (const size of Object.keys(limits) as (keyof typeof limits)[]) {
    const value = sizes[size];
    if (value !== undefined && !(Number.isInteger(value) && value >= 1 && value <= limits[size])) {
      throw error(size, `must be an integer from 1 to ${limits[size]}, got ${value}`);
    }
  }
  const { hidden, heads, kvHeads, headDim, normEps } = sizes;
  if (heads % kvHeads !== 0) throw error("kvHeads", `must divide the ${heads} query heads, got ${kvHeads}`);
  if (headDim === undefined && hidden % heads !== 0) {
    throw error("heads", `must divide the width ${hidden} where no head width is given, got ${heads}`);
  }
  if (!(normEps > 0 && normEps < 1)) throw error("normEps", `must be above 0 and below 1, got ${normEps}`);
}

function checkedRope(spec: DecoderSpec, headDim: number): ReturnType<typeof ropeConfig> {
  const error = (problem: string, cause?: unknown) =>
    new ModelFileError(spec.file, { field: spec.ropeField, problem, cause });
  const init = spec.rope(headDim);
  if (init.dimensions > headDim) throw error(`must rotate at most the head width ${headDim}, got ${init.dimensions}`);
  try {
    return ropeConfig(init);
  } catch (cause) {
    if (cause instanceof RangeError) throw error(`is not usable: ${cause.message}`, cause);
    throw cause;
  }
}

/** The tensors of the file that no weight has claimed yet. */
class TensorShelf {
  readonly #file: string;
  readonly #tensors: ReadonlyMap<string, StoredTensor>;
  readonly #left: Set<string>;

  constructor({ file, tensors }: Pick<DecoderSpec, "file" | "tensors">) {
    this.#file = file;
    this.#tensors = tensors;
    this.#left = new Set(tensors.keys());
  }

  take(name: string): StoredTensor {
    const tensor = this.#tensors.get(name);
    if (tensor === undefined) throw this.#error(name, "is missing");
    this.#left.delete(name);
    return tensor;
  }

  matrix(name: string, { rows, cols }: { readonly rows: number; readonly cols: number }): WeightTensor {
    const tensor = this.take(name);
    this.checkShape(tensor, { rows, cols });
    return tensor;
  }

  vector(name: string, cols: number): WeightTensor {
    const tensor = this.take(name);
    if (tensor.shape.length !== 1 || tensor.cols !== cols) {
      throw this.#error(name, `has shape [${tensor.shape}], the configuration needs [${cols}]`);
    }
    return tensor.dtype === "F32" ? tensor : new F32Vector(tensor);
  }

  optionalVector(name: string, cols: number): WeightTensor | undefined {
    return this.#tensors.has(name) ? this.vector(name, cols) : undefined;
  }

  checkShape(
    tensor: StoredTensor,
    { rows, cols, because = "the configuration" }: {
      readonly rows: number;
      readonly cols: number;
      readonly because?: string;
    },
  ): void {
    if (tensor.shape.length !== 2 || tensor.rows !== rows || tensor.cols !== cols) {
      throw this.#error(tensor.name, `has shape [${tensor.shape}], ${because} needs [${rows},${cols}]`);
    }
  }

  checkEmpty(ignored: (name: string) => boolean): void {
    for (const name of this.#left) {
      if (!ignored(name)) throw this.#error(name, "is not known to this model family");
    }
  }

  #error(name: string, problem: string): ModelFileError {
    return new ModelFileError(this.#file, { field: `tensor ${JSON.stringify(name)}`, problem });
  }
}
