/**
 * Sizes of the models whose steps are measured on a GPU, with random weights.
 *
 * @module
 */
import type { CudaPackedType } from "../../kernels/linear/cuda_layout.ts";
import type { ModelConfig } from "../../runtime/model/model.ts";
import { ropeConfig } from "../../runtime/model/rope.ts";

/** A model's sizes. */
export interface BenchShape {
  /** Short name. */
  readonly name: string;
  /** Sizes. */
  readonly config: ModelConfig;
  /** Whether the head is the embedding. */
  readonly tied: boolean;
  /** Type of matrices that stay packed. @default {they are bf16} */
  readonly packed?: CudaPackedType;
}

function shape(
  name: string,
  sizes: Omit<ModelConfig, "family" | "normEps" | "rope" | "contextLength"> & { readonly theta: number },
  tied = false,
): BenchShape {
  const { theta, ...rest } = sizes;
  return {
    name,
    tied,
    config: {
      family: "llama",
      ...rest,
      contextLength: 131_072,
      normEps: 1e-5,
      rope: ropeConfig({ dimensions: rest.headDim, theta, pairing: "halves" }),
    },
  };
}

const LLAMA2_7B = shape("llama2-7b", {
  layers: 32,
  hidden: 4096,
  heads: 32,
  kvHeads: 32,
  headDim: 128,
  intermediate: 11_008,
  vocab: 32_000,
  theta: 10_000,
});

/** The measured models by name. */
export const BENCH_SHAPES: readonly BenchShape[] = [
  shape("smollm2-135m", {
    layers: 30,
    hidden: 576,
    heads: 9,
    kvHeads: 3,
    headDim: 64,
    intermediate: 1536,
    vocab: 49_152,
    theta: 100_000,
  }, true),
  LLAMA2_7B,
  { ...LLAMA2_7B, name: "llama2-7b-q4_0", packed: "Q4_0" },
  shape("llama3-8b", {
    layers: 32,
    hidden: 4096,
    heads: 32,
    kvHeads: 8,
    headDim: 128,
    intermediate: 14_336,
    vocab: 128_256,
    theta: 500_000,
  }),
];
