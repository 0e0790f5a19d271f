/**
 * Sizes of the models whose steps are measured on a GPU, with random weights.
 *
 * @module
 */
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
  shape("llama2-7b", {
    layers: 32,
    hidden: 4096,
    heads: 32,
    kvHeads: 32,
    headDim: 128,
    intermediate: 11_008,
    vocab: 32_000,
    theta: 10_000,
  }),
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
