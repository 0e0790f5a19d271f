/**
 * What a text Worker and its owner say to each other.
 *
 * @module
 */
import type { TextAssets } from "../model/model.ts";
import { type ChatMessage, type RenderOptions, TemplateError, type TokenTable } from "./codec.ts";

/** First message to the Worker; everything else goes through the port. */
export interface TextWorkerStart {
  /** Tokenizer and template, or where to read them. */
  readonly source: TextAssets | ModelText;
  /** Takes {@linkcode TextRequest}, gives {@linkcode TextReply}. */
  readonly port: MessagePort;
}

/** The text part of a model file. */
export interface ModelText {
  /** GGUF file or Hugging Face directory. */
  readonly modelPath: string;
  /** Jinja source to use instead of the model's. */
  readonly chatTemplate?: string;
}

/** What the owner of a text Worker needs to know of its tokenizer. */
export interface CodecFacts {
  /** Bytes of every token. */
  readonly vocabulary: TokenTable;
  /** Id that prompts begin with, if any. */
  readonly bos?: number;
  /** Ids that end generation. */
  readonly eos: readonly number[];
  /** Whether decoding drops one space at the start. */
  readonly dropsLeadingSpace: boolean;
}

/** A request by id. */
export type TextRequest =
  & { readonly id: number }
  & (
    | { readonly kind: "encode"; readonly text: string; readonly parseSpecial: boolean }
    | {
      readonly kind: "render-chat" | "encode-chat";
      readonly messages: readonly ChatMessage[];
      readonly options: RenderOptions;
    }
    | { readonly kind: "close" }
  );

/** What a text Worker answers. */
export type TextReply =
  | ({ readonly kind: "ready" } & CodecFacts)
  | { readonly kind: "start-failed"; readonly error: ErrorParts }
  | { readonly kind: "done"; readonly id: number; readonly result: Int32Array | string | undefined }
  | { readonly kind: "failed"; readonly id: number; readonly error: ErrorParts };

/** An error as it crosses between threads. */
export interface ErrorParts {
  /** Class name. */
  readonly name: string;
  /** Message. */
  readonly message: string;
}

/** The parts of anything that was thrown. */
export function errorParts(thrown: unknown): ErrorParts {
  return thrown instanceof Error
    ? { name: thrown.name, message: thrown.message }
    : { name: "Error", message: String(thrown) };
}

/** The error with the same class where callers tell classes apart, else an `Error` of that name. */
export function errorFromParts({ name, message }: ErrorParts): Error {
  switch (name) {
    case "TemplateError":
      return new TemplateError(message);
    case "RangeError":
      return new RangeError(message);
    case "TypeError":
      return new TypeError(message);
    case "ReferenceError":
      return new ReferenceError(message);
    case "ModelFileError": {
      const error = new Error(message);
      error.name = name;
      return error;
    }
    case "NotCapable":
      return new Deno.errors.NotCapable(message);
    default: {
      const error = new Error(message);
      error.name = name;
      return error;
    }
  }
}
