/**
 * What every peer is given.
 *
 * @module
 */
import type { ModelWork } from "../model_work.ts";
import type { Prompts } from "../prompts.ts";

/** The same model, prompts and threads as ours. */
export interface PeerOptions {
  /** GGUF file. */
  readonly modelPath: string;
  /** Compute threads. */
  readonly threads: number;
  /** Prompts of the rows. */
  readonly prompts: Prompts;
  /** Work of the model, for memory. */
  readonly work: ModelWork;
  /** Seed of the fresh prompts. */
  readonly seed: number;
}
