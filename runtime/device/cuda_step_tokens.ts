/**
 * How many tokens a step of a GPU has.
 *
 * @module
 */
import type { ModelConfig } from "../model/model.ts";

/** Sizes of the steps of a model. */
export interface StepTokens {
  /** Most tokens of a step. */
  readonly most: number;
  /** The same while a sequence decodes: its next token waits for all of them. */
  readonly mixed: number;
}

/** For models of billions of parameters: 2048 tokens of eight billion take 45 ms of an H200. */
const USUAL: StepTokens = { most: 4096, mixed: 2048 };
/** For small models, whose launches take longer than their arithmetic in smaller steps: 8192 tokens take less than that. */
const SMALL: StepTokens = { most: 8192, mixed: 8192 };
/** Multiply-accumulates of a token in the layers of the largest of these. */
const SMALL_WORK = 1.5e9;

/** Tokens of the steps of a model when nothing is asked for. */
export function cudaStepTokens(config: ModelConfig): StepTokens {
  const { layers, hidden, heads, kvHeads, headDim, intermediate } = config;
  const work = layers * hidden * (2 * (heads + kvHeads) * headDim + 3 * intermediate);
  return work <= SMALL_WORK ? SMALL : USUAL;
}
