/**
 * Mistral without a sliding window: LLaMA under another name. GGUF files of it say `llama`.
 *
 * @module
 */
import { ModelFileError } from "../../weights/model_file_error.ts";
import type { ModelFamily } from "../family.ts";
import { llamaFromHuggingFace } from "./llama.ts";

/** The Mistral family. */
export const MISTRAL: ModelFamily = {
  name: "mistral",
  fromGguf(file) {
    throw new ModelFileError(file.name, {
      field: "general.architecture",
      problem: 'must be "llama" for a Mistral model, got "mistral"',
    });
  },
  fromHuggingFace: (directory) => llamaFromHuggingFace(directory, "mistral"),
};
