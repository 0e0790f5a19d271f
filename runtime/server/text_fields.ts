/**
 * Bodies of the tokenizer and template routes.
 *
 * @module
 */
import { z } from "zod";
import { BodySchema } from "./body_schema.ts";
import { messagesSchema, type RawMessage } from "./chat_fields.ts";
import type { ServerLimits } from "./limits.ts";

/** Body of `/tokenize`. */
export interface TokenizeFields {
  /** Text to tokenize. */
  readonly prompt: string;
  /** Whether control tokens written in the text are recognised. */
  readonly parse_special?: boolean;
}

/** Body of `/detokenize`. */
export interface DetokenizeFields {
  /** Token ids. */
  readonly tokens: readonly number[];
}

/** Body of `/apply-template`. */
export interface TemplateFields {
  /** The chat so far. */
  readonly messages: readonly RawMessage[];
  /** Whether to open the assistant's turn. */
  readonly add_generation_prompt?: boolean;
  /** Extra variables of the chat template. */
  readonly chat_template_kwargs?: Readonly<Record<string, unknown>>;
}

/** Schema of {@linkcode TokenizeFields}. */
export function tokenizeSchema(): BodySchema<TokenizeFields> {
  return new BodySchema(z.object({ prompt: z.string(), parse_special: z.boolean().optional() }));
}

/** Schema of {@linkcode DetokenizeFields}. */
export function detokenizeSchema(): BodySchema<DetokenizeFields> {
  return new BodySchema(z.object({ tokens: z.array(z.number()) }));
}

/** Schema of {@linkcode TemplateFields}. */
export function templateSchema(limits: ServerLimits): BodySchema<TemplateFields> {
  return new BodySchema(
    z.object({
      messages: messagesSchema(limits),
      add_generation_prompt: z.boolean().optional(),
      chat_template_kwargs: z.record(z.string(), z.unknown()).optional(),
    }),
    { chat_template: () => false, tools: (value) => Array.isArray(value) && value.length === 0 },
  );
}
