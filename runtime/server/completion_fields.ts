/**
 * The fields of a plain completion request.
 *
 * @module
 */
import { z } from "zod";
import { fieldError } from "./api_error.ts";
import { BodySchema, type JsonSchema } from "./body_schema.ts";
import type { ServerLimits } from "./limits.ts";
import { checkTokenId, type SamplingFields, samplingShape, UNSERVED_SAMPLING_FIELDS } from "./sampling_fields.ts";

/** Body of a completion request. */
export interface CompletionFields extends SamplingFields {
  /** A text, texts, token ids or arrays of token ids. */
  readonly prompt?: unknown;
  /** Whether the prompt is put before the text. */
  readonly echo?: boolean;
  /** Report log-probabilities with this many rivals. */
  readonly logprobs?: number;
  /** Accepted when it equals `n`. */
  readonly best_of?: number;
}

/** One prompt: a text or token ids. */
export type Prompt = string | readonly number[];

const PROMPT_SCHEMA: JsonSchema = {
  oneOf: [
    { type: "string" },
    { type: "array", items: { type: "string" }, minItems: 1 },
    { type: "array", items: { type: "integer", minimum: 0 }, minItems: 1 },
    { type: "array", items: { type: "array", items: { type: "integer", minimum: 0 }, minItems: 1 }, minItems: 1 },
  ],
};

/** Schema of {@linkcode CompletionFields}. */
export function completionSchema(limits: ServerLimits): BodySchema<CompletionFields> {
  return new BodySchema(
    z.object({
      ...samplingShape(limits),
      prompt: z.unknown().meta(PROMPT_SCHEMA),
      echo: z.boolean().optional(),
      logprobs: z.int().min(0).max(limits.logprobs).optional(),
      best_of: z.int().min(1).optional(),
    }),
    {
      ...UNSERVED_SAMPLING_FIELDS,
      prompt_embeds: () => false,
      suffix: (value) => value === "",
    },
  );
}

/** What {@linkcode readPrompts} checks against. */
export interface PromptContext {
  /** Rows of the vocabulary. */
  readonly vocab: number;
  /** Most prompts. */
  readonly mostPrompts: number;
}

/**
 * Prompts of a request, in order.
 *
 * @throws {ApiError} 400 that names the prompt or the token at fault.
 */
export function readPrompts(prompt: unknown, context: PromptContext): Prompt[] {
  if (typeof prompt === "string") return [prompt];
  if (!Array.isArray(prompt)) {
    throw fieldError("prompt", "expected a string, strings, token ids or arrays of token ids");
  }
  if (prompt.length === 0) throw fieldError("prompt", "expected at least one element");
  if (typeof prompt[0] === "number") return [readIds(prompt, { param: "prompt", vocab: context.vocab })];
  if (prompt.length > context.mostPrompts) {
    throw fieldError("prompt", `expected at most ${context.mostPrompts} prompts, got ${prompt.length}`);
  }
  return prompt.map((item: unknown, place) => {
    if (typeof item === "string") return item;
    return readIds(item, { param: `prompt[${place}]`, vocab: context.vocab });
  });
}

function readIds(value: unknown, at: { readonly param: string; readonly vocab: number }): readonly number[] {
  const { param, vocab } = at;
  if (!Array.isArray(value)) throw fieldError(param, "expected a string or token ids");
  if (value.length === 0) throw fieldError(param, "expected at least one token id");
  for (const [place, id] of value.entries()) checkTokenId(id, { param: `${param}[${place}]`, vocab });
  return value;
}
