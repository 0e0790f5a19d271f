/**
 * Model families: what turns the metadata and tensors of a file into a {@linkcode ModelConfig} and
 * {@linkcode ModelWeights}.
 *
 * A new family is one file in `families/` and one line in {@linkcode FAMILIES}. A decoder with RMSNorm, grouped-query
 * attention and a gated MLP (Mistral, Qwen2) states how its metadata is spelled and hands it to `buildDecoder` in
 * `decoder.ts`, as `families/llama.ts` and `families/mistral.ts` do. A family that computes something else (Qwen3's
 * query and key norms, Gemma's extra norms) first needs a field in `ModelConfig` or `LayerWeights` that every device
 * honours; until then its file refuses the model by name.
 *
 * @module
 */
import type { GgufFile } from "../weights/gguf.ts";
import type { HfDirectory } from "../weights/hf_directory.ts";
import { LLAMA } from "./families/llama.ts";
import { MISTRAL } from "./families/mistral.ts";
import type { ModelConfig, ModelWeights } from "./model.ts";

/** What a family makes of a file. */
export interface Decoder {
  /** Sizes and constants. */
  readonly config: ModelConfig;
  /** Tensors. */
  readonly weights: ModelWeights;
}

/** Reader of one model family. */
export interface ModelFamily {
  /** `general.architecture` of GGUF files, `model_type` of Hugging Face configurations. */
  readonly name: string;
  /** Reads a GGUF file. @throws {ModelFileError} when the file is not a model that this family runs. */
  fromGguf(file: GgufFile): Decoder;
  /** Reads a Hugging Face directory. @throws {ModelFileError} when the directory is not a model that this family runs. */
  fromHuggingFace(directory: HfDirectory): Decoder;
}

/** The families by {@linkcode ModelFamily.name}. */
export const FAMILIES: ReadonlyMap<string, ModelFamily> = new Map(
  [LLAMA, MISTRAL].map((family) => [family.name, family]),
);
