/**
 * Sizes and random weights of tiny models for tests of everything that runs models.
 *
 * The weights depend on the seed and on the sizes, not on the container: with a float type, a GGUF file and a Hugging
 * Face directory hold the same model (the GGUF one with query and key rows reordered for rotation of adjacent pairs).
 *
 * @module
 */
import { type DType, DTYPE_LAYOUT } from "../../kernels/dtype.ts";
import type { RopeScaling } from "../../runtime/model/rope.ts";
import { SeededRandom } from "./random.ts";
import { MINIMUM_VOCABULARY } from "./tokenizer.ts";

/** Sizes and variants of a synthetic model. */
export interface SyntheticSpec {
  /** Seed of the weights. @default {1} */
  readonly seed?: number;
  /** Transformer blocks. @default {2} */
  readonly layers?: number;
  /** Width of the residual stream. @default {64} */
  readonly hidden?: number;
  /** Query heads. @default {4} */
  readonly heads?: number;
  /** Key and value heads. @default {2} */
  readonly kvHeads?: number;
  /** Width of one head. @default {16} */
  readonly headDim?: number;
  /** Width of the MLP. @default {96} */
  readonly intermediate?: number;
  /** At least `MINIMUM_VOCABULARY`, the default. */
  readonly vocab?: number;
  /** Context length, tokens. @default {512} */
  readonly contextLength?: number;
  /** Epsilon of the norms. @default {1e-5} */
  readonly normEps?: number;
  /** Whether the head is the embedding. @default {true} */
  readonly tied?: boolean;
  /** Whether query, key and value have biases. @default {false} */
  readonly biases?: boolean;
  /** Type of the matrices; one whose rows do not fit the type's blocks is F16. @default {"F32"} */
  readonly dtype?: DType;
  /** Type of the embedding and the head. @default {the same as dtype} */
  readonly embeddingDtype?: DType;
  /** Types of single matrices, by the end of their GGUF name before `.weight`. @default {{}} */
  readonly tensorDtypes?: Readonly<Record<string, DType>>;
  /** Base of the rotary frequencies. @default {10000} */
  readonly theta?: number;
  /** Rotated dimensions of a head. @default {headDim} */
  readonly ropeDimensions?: number;
  /** Context extension. @default {{ kind: "none" }} */
  readonly rope?: RopeScaling;
}

/** A spec with every default filled in. */
export type FullSpec = Required<SyntheticSpec>;

/** Fills in the defaults. */
export function withDefaults(spec: SyntheticSpec): FullSpec {
  const { headDim = 16, dtype = "F32" } = spec;
  return {
    seed: 1,
    layers: 2,
    hidden: 64,
    heads: 4,
    kvHeads: 2,
    intermediate: 96,
    vocab: MINIMUM_VOCABULARY,
    contextLength: 512,
    normEps: 1e-5,
    tied: true,
    biases: false,
    embeddingDtype: dtype,
    tensorDtypes: {},
    theta: 10_000,
    ropeDimensions: headDim,
    rope: { kind: "none" },
    ...spec,
    headDim,
    dtype,
  };
}

/** A weight before it is stored. */
export interface Weight {
  /** Name in GGUF files. */
  readonly gguf: string;
  /** Name in Hugging Face files. */
  readonly huggingFace: string;
  /** Dimensions, slowest first. */
  readonly shape: readonly number[];
  /** Type to store it in. */
  readonly dtype: DType;
  /** Heads of a query or key projection, whose rows the containers order differently. */
  readonly rotatedHeads?: number;
  /** Values, query and key rows in halves order. */
  readonly values: Float32Array;
}

/** All weights in the order of a file. */
export function makeWeights(spec: FullSpec): Weight[] {
  const { seed, hidden, heads, kvHeads, headDim, intermediate, vocab } = spec;
  const fitting = (dtype: DType, cols: number): DType => cols % DTYPE_LAYOUT[dtype].elements === 0 ? dtype : "F16";
  const matrix = (
    gguf: string,
    huggingFace: string,
    { rows, cols, dtype = spec.dtype, gain = 1, rotatedHeads }: {
      rows: number;
      cols: number;
      dtype?: DType;
      gain?: number;
      rotatedHeads?: number;
    },
  ): Weight => {
    const random = new SeededRandom(seed, huggingFace);
    const deviation = gain / Math.sqrt(cols);
    const own = Object.entries(spec.tensorDtypes).find(([end]) => gguf.endsWith(`.${end}.weight`));
    const values = Float32Array.from({ length: rows * cols }, () => deviation * random.normal());
    return {
      gguf,
      huggingFace,
      shape: [rows, cols],
      dtype: fitting(own?.[1] ?? dtype, cols),
      values,
      ...(rotatedHeads && { rotatedHeads }),
    };
  };
  const vector = (
    gguf: string,
    huggingFace: string,
    { size, mean, rotatedHeads }: { size: number; mean: number; rotatedHeads?: number },
  ): Weight => {
    const random = new SeededRandom(seed, huggingFace);
    const values = Float32Array.from({ length: size }, () => mean + 0.1 * random.normal());
    return { gguf, huggingFace, shape: [size], dtype: "F32", values, ...(rotatedHeads && { rotatedHeads }) };
  };
  const table = { rows: vocab, cols: hidden, dtype: spec.embeddingDtype, gain: 4 };
  const weights = [matrix("token_embd.weight", "model.embed_tokens.weight", table)];
  for (let layer = 0; layer < spec.layers; layer++) {
    const gguf = `blk.${layer}.`;
    const hf = `model.layers.${layer}.`;
    const query = { size: heads * headDim, mean: 0, rotatedHeads: heads };
    const key = { size: kvHeads * headDim, mean: 0, rotatedHeads: kvHeads };
    weights.push(
      vector(`${gguf}attn_norm.weight`, `${hf}input_layernorm.weight`, { size: hidden, mean: 1 }),
      matrix(`${gguf}attn_q.weight`, `${hf}self_attn.q_proj.weight`, {
        rows: query.size,
        cols: hidden,
        gain: 1.5,
        rotatedHeads: heads,
      }),
      matrix(`${gguf}attn_k.weight`, `${hf}self_attn.k_proj.weight`, {
        rows: key.size,
        cols: hidden,
        gain: 1.5,
        rotatedHeads: kvHeads,
      }),
      matrix(`${gguf}attn_v.weight`, `${hf}self_attn.v_proj.weight`, { rows: key.size, cols: hidden }),
      matrix(`${gguf}attn_output.weight`, `${hf}self_attn.o_proj.weight`, { rows: hidden, cols: query.size }),
      vector(`${gguf}ffn_norm.weight`, `${hf}post_attention_layernorm.weight`, { size: hidden, mean: 1 }),
      matrix(`${gguf}ffn_gate.weight`, `${hf}mlp.gate_proj.weight`, { rows: intermediate, cols: hidden }),
      matrix(`${gguf}ffn_up.weight`, `${hf}mlp.up_proj.weight`, { rows: intermediate, cols: hidden }),
      matrix(`${gguf}ffn_down.weight`, `${hf}mlp.down_proj.weight`, { rows: hidden, cols: intermediate }),
    );
    if (spec.biases) {
      weights.push(
        vector(`${gguf}attn_q.bias`, `${hf}self_attn.q_proj.bias`, query),
        vector(`${gguf}attn_k.bias`, `${hf}self_attn.k_proj.bias`, key),
        vector(`${gguf}attn_v.bias`, `${hf}self_attn.v_proj.bias`, { size: key.size, mean: 0 }),
      );
    }
  }
  weights.push(vector("output_norm.weight", "model.norm.weight", { size: hidden, mean: 1 }));
  if (!spec.tied) weights.push(matrix("output.weight", "lm_head.weight", table));
  return weights;
}
