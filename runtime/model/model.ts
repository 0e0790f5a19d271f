/**
 * What a decoder-only model is, independent of the file it came from and of the device that runs it.
 *
 * A model family (one small file in `families/`) turns file metadata into a {@linkcode ModelConfig} and a
 * {@linkcode ModelWeights}; a device consumes both.
 *
 * @module
 */
import type { DType } from "../../kernels/dtype.ts";

/** Rotary embedding of the query and key heads. */
export interface RopeConfig {
  /** Rotated dimensions of a head, even, at most `headDim`. */
  readonly dimensions: number;
  /**
   * Inverse frequency of each rotated pair, radians per token, `dimensions / 2` values. Scaling (linear, llama3, yarn)
   * is already applied.
   */
  readonly inverseFrequencies: Float64Array;
  /** Factor on the rotated cosine and sine (YaRN's attention factor); 1 without YaRN. */
  readonly magnitude: number;
  /** `adjacent`: pairs (2i, 2i+1), as GGUF LLaMA files store rows; `halves`: pairs (i, i + dimensions/2). */
  readonly pairing: "adjacent" | "halves";
}

/** Sizes and constants of a decoder-only transformer with RMSNorm, grouped-query attention and a gated MLP. */
export interface ModelConfig {
  /** Family that built this configuration, for example `llama`. */
  readonly family: string;
  /** Transformer blocks. */
  readonly layers: number;
  /** Width of the residual stream. */
  readonly hidden: number;
  /** Query heads. */
  readonly heads: number;
  /** Key and value heads; divides `heads`. Query head h reads KV head floor(h / (heads / kvHeads)). */
  readonly kvHeads: number;
  /** Width of one head; `heads * headDim` may differ from `hidden`. */
  readonly headDim: number;
  /** Width of the gated MLP. */
  readonly intermediate: number;
  /** Rows of the embedding. */
  readonly vocab: number;
  /** Longest context the model was made for, tokens. */
  readonly contextLength: number;
  /** Epsilon of every RMSNorm. */
  readonly normEps: number;
  /** Rotary embedding. */
  readonly rope: RopeConfig;
}

/** One stored tensor: `rows` rows of `cols` values (a vector has one row), row-major. */
export interface WeightTensor {
  /** Name in the file, for messages. */
  readonly name: string;
  /** Stored element type. */
  readonly dtype: DType;
  /** Output features; 1 for a vector. */
  readonly rows: number;
  /** Input features. */
  readonly cols: number;
  /** Stored size in bytes. */
  readonly bytes: number;
  /**
   * Fills `into` with the stored bytes from `offset` on. Synchronous; `into` may be a view of shared memory.
   *
   * @throws {RangeError} when the range leaves the tensor.
   */
  readInto(into: Uint8Array, offset: number): void;
}

/** Weights of one transformer block. Projections are [out, in]. */
export interface LayerWeights {
  /** RMSNorm before attention, [hidden]. */
  readonly attentionNorm: WeightTensor;
  /** [heads * headDim, hidden] */
  readonly query: WeightTensor;
  /** [kvHeads * headDim, hidden] */
  readonly key: WeightTensor;
  /** [kvHeads * headDim, hidden] */
  readonly value: WeightTensor;
  /** Optional biases of the three projections, F32 vectors. */
  readonly queryBias?: WeightTensor;
  /** See {@linkcode queryBias}. */
  readonly keyBias?: WeightTensor;
  /** See {@linkcode queryBias}. */
  readonly valueBias?: WeightTensor;
  /** [hidden, heads * headDim] */
  readonly output: WeightTensor;
  /** RMSNorm before the MLP, [hidden]. */
  readonly mlpNorm: WeightTensor;
  /** [intermediate, hidden] */
  readonly gate: WeightTensor;
  /** [intermediate, hidden] */
  readonly up: WeightTensor;
  /** [hidden, intermediate] */
  readonly down: WeightTensor;
}

/** All weights of a model. */
export interface ModelWeights {
  /** Token embedding, [vocab, hidden]. */
  readonly embedding: WeightTensor;
  /** Transformer blocks in order. */
  readonly layers: readonly LayerWeights[];
  /** Final RMSNorm, [hidden]. */
  readonly outputNorm: WeightTensor;
  /** Output projection, [vocab, hidden]; the same object as `embedding` when tied. */
  readonly head: WeightTensor;
}

/** Tokenizer, template and end tokens as the model file states them; `runtime/text` builds the codec from it. */
export interface TextAssets {
  /** A `tokenizer.json`-shaped object (Hugging Face tokenizers), made from GGUF metadata where needed. */
  readonly tokenizerJson: unknown;
  /** Jinja source of the chat template, when the file has one. */
  readonly chatTemplate?: string;
  /** Ids of control tokens by their text. */
  readonly specialTokens: Readonly<Record<string, number>>;
  /** Begin-of-sequence id, put before every prompt when `addBos`. */
  readonly bos?: number;
  /** Whether prompts begin with `bos`. */
  readonly addBos: boolean;
  /** Ids that end generation. */
  readonly eos: readonly number[];
}

/** An opened model: its files stay open until it is disposed. */
export interface OpenModel extends Disposable {
  /** Name shown to users when no `--served-model-name` is given, for example the file's stem. */
  readonly name: string;
  /** Lower-case hexadecimal SHA-256 over the model's identity (metadata, tensor table and a sample of the data). */
  readonly digest: string;
  /** Sizes and constants. */
  readonly config: ModelConfig;
  /** Tensors. */
  readonly weights: ModelWeights;
  /** Tokenizer and template. */
  readonly text: TextAssets;
  /** Sum of the stored tensor bytes. */
  readonly weightBytes: number;
}
