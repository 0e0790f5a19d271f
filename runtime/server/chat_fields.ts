/**
 * The fields of a chat request.
 *
 * @module
 */
import { z } from "zod";
import type { ChatMessage, RenderOptions } from "../text/codec.ts";
import { fieldError } from "./api_error.ts";
import { BodySchema, type JsonSchema, type UnservedFields } from "./body_schema.ts";
import type { ServerLimits } from "./limits.ts";
import { type SamplingFields, samplingShape, UNSERVED_SAMPLING_FIELDS } from "./sampling_fields.ts";

/** One message before its content is checked. */
export interface RawMessage {
  /** Who speaks. */
  readonly role: string;
  /** Text, or an array of text parts. */
  readonly content?: unknown;
  /** Name of the speaker. */
  readonly name?: string;
  /** Anything else a client sends. */
  readonly [field: string]: unknown;
}

/** Body of a chat completion request. */
export interface ChatFields extends SamplingFields {
  /** The chat so far. */
  readonly messages: readonly RawMessage[];
  /** Most tokens to generate; goes before `max_tokens`. */
  readonly max_completion_tokens?: number;
  /** Whether to report log-probabilities. */
  readonly logprobs?: boolean;
  /** Rivals beside each token. */
  readonly top_logprobs?: number;
  /** Whether to open the assistant's turn. */
  readonly add_generation_prompt?: boolean;
  /** Whether the last message, the assistant's, is to be continued. */
  readonly continue_final_message?: boolean;
  /** Extra variables of the chat template. */
  readonly chat_template_kwargs?: Readonly<Record<string, unknown>>;
}

const isFalse = (value: unknown) => value === false;
const isEmpty = (value: unknown) => Array.isArray(value) && value.length === 0;
const never = () => false;

const UNSERVED_CHAT_FIELDS: UnservedFields = {
  ...UNSERVED_SAMPLING_FIELDS,
  audio: never,
  chat_template: never,
  documents: isEmpty,
  echo: isFalse,
  function_call: (value) => value === "none",
  functions: isEmpty,
  media_io_kwargs: never,
  mm_processor_kwargs: never,
  modalities: (value) => Array.isArray(value) && value.every((item) => item === "text"),
  prediction: never,
  reasoning_effort: (value) => value === "none",
  store: isFalse,
  tool_choice: (value) => value === "none" || value === "auto",
  tools: isEmpty,
  verbosity: (value) => value === "medium",
  web_search_options: never,
};

/** JSON Schema of a message's content, which is checked by {@linkcode readMessages}. */
const CONTENT_SCHEMA: JsonSchema = {
  oneOf: [
    { type: "string" },
    {
      type: "array",
      items: {
        type: "object",
        properties: { type: { const: "text" }, text: { type: "string" } },
        required: ["type", "text"],
      },
    },
  ],
};

/** Schema of `messages`. */
export function messagesSchema(limits: ServerLimits): z.ZodType<readonly RawMessage[]> {
  const message = z.looseObject({
    role: z.enum(["system", "developer", "user", "assistant", "tool", "function"]),
    content: z.unknown().meta(CONTENT_SCHEMA),
    // Templates may print the name, so it must not be able to spell a control token.
    name: z.string().max(limits.labelLength).regex(/^[^\s<|\\/>]+$/, "expected no spaces and none of < | \\ / >")
      .optional(),
  });
  return z.array(message).min(1).max(limits.messages);
}

/** Schema of {@linkcode ChatFields}. */
export function chatSchema(limits: ServerLimits): BodySchema<ChatFields> {
  return new BodySchema(
    z.object({
      ...samplingShape(limits),
      messages: messagesSchema(limits),
      max_completion_tokens: z.int().min(0).optional(),
      logprobs: z.boolean().optional(),
      top_logprobs: z.int().min(0).max(limits.logprobs).optional(),
      add_generation_prompt: z.boolean().optional(),
      continue_final_message: z.boolean().optional(),
      chat_template_kwargs: z.record(z.string(), z.unknown()).optional(),
    }),
    UNSERVED_CHAT_FIELDS,
  );
}

const MEDIA_PARTS: ReadonlySet<string> = new Set([
  "image_url",
  "input_image",
  "image",
  "input_audio",
  "audio_url",
  "video_url",
  "file",
  "input_file",
]);

/**
 * Messages with their content as plain text.
 *
 * @throws {ApiError} 400 that names the message or part that is not text. Nothing a message points to is ever fetched.
 */
export function readMessages(messages: readonly RawMessage[]): ChatMessage[] {
  return messages.map((message, place) => {
    const at = `messages[${place}]`;
    for (const field of ["tool_calls", "function_call", "audio"]) {
      const value = message[field];
      if (value !== undefined && value !== null && !isEmpty(value)) throw unsupported(`${at}.${field}`);
    }
    if (message.role === "tool" || message.role === "function") throw unsupported(`${at}.role`, `"${message.role}"`);
    // The newer name of the same role; templates know the older one.
    const role = message.role === "developer" ? "system" : message.role;
    const content = readContent(message.content, `${at}.content`);
    return message.name === undefined ? { role, content } : { role, content, name: message.name };
  });
}

function readContent(content: unknown, at: string): string {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) throw fieldError(at, "expected a string or an array of text parts");
  return content.map((part: unknown, place) => readPart(part, `${at}[${place}]`)).join("");
}

function readPart(part: unknown, at: string): string {
  if (typeof part !== "object" || part === null || !("type" in part)) throw fieldError(at, "expected a text part");
  const { type } = part;
  if (typeof type === "string" && MEDIA_PARTS.has(type)) throw unsupported(`${at}.type`, `"${type}"`);
  if (type !== "text") throw fieldError(`${at}.type`, 'expected "text"');
  if (!("text" in part) || typeof part.text !== "string") throw fieldError(`${at}.text`, "expected a string");
  return part.text;
}

function unsupported(param: string, value?: string): Error {
  return fieldError(param, `${value ?? "this field"} is not supported yet`, { code: "unsupported_parameter" });
}

/** Variables that the server itself sets or that would replace the template. */
const RESERVED_VARIABLES: ReadonlySet<string> = new Set([
  "__proto__",
  "add_generation_prompt",
  "bos_token",
  "chat_template",
  "continue_final_message",
  "eos_token",
  "messages",
  "tokenize",
  "tools",
]);

/**
 * Template variables of a request.
 *
 * @throws {ApiError} 400 when one is reserved or not an identifier.
 */
export function readTemplateVariables(variables: ChatFields["chat_template_kwargs"]): RenderOptions["variables"] {
  for (const name of Object.keys(variables ?? {})) {
    if (RESERVED_VARIABLES.has(name) || !/^[A-Za-z_]\w{0,63}$/.test(name)) {
      throw fieldError("chat_template_kwargs", "expected names of variables that are not reserved");
    }
  }
  return variables;
}
