/**
 * Which model a command line names.
 *
 * @module
 */
import { DEFAULT_MODEL } from "../hub/known_models.ts";
import type { CommandInput } from "./main.ts";
import { UsageError } from "./usage_error.ts";

/** The model named by `--model` or by the only word. @throws {UsageError} when both name one. */
export function namedModel({ settings: { model }, words }: Pick<CommandInput, "settings" | "words">): string {
  const [word] = words;
  if (word !== undefined && model !== DEFAULT_MODEL && model !== word) {
    throw new UsageError(`Cannot choose a model: wanted one, got ${word} and --model ${model}`);
  }
  return word ?? model;
}
