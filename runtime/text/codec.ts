/**
 * Text to token ids and back, as the engine and the server see it.
 *
 * @module
 */

/** Message of a chat, content already flattened to a string. */
export interface ChatMessage {
  /** `system`, `user`, `assistant`, `tool`, … */
  readonly role: string;
  /** Plain text; special-token text in it stays text. */
  readonly content: string;
  /** Fields a template may read (`name`, `tool_calls`, `tool_call_id`). */
  readonly [field: string]: unknown;
}

/** Options of {@linkcode TextCodec.renderChat}. */
export interface RenderOptions {
  /** Whether to open the assistant's turn. @default {true} */
  readonly addGenerationPrompt?: boolean;
  /** Extra template variables. */
  readonly variables?: Readonly<Record<string, unknown>>;
}

/** Tokenizer and chat template of one model, run off the caller's thread. */
export interface TextCodec extends AsyncDisposable {
  /** Token ids of `text`, without BOS. With `parseSpecial`, control tokens written in the text are recognised. */
  encode(text: string, options?: { readonly parseSpecial?: boolean }): Promise<Int32Array>;
  /** Text of `ids`; control tokens appear as text unless `skipSpecial`. */
  decode(ids: ArrayLike<number>, options?: { readonly skipSpecial?: boolean }): Promise<string>;
  /**
   * Renders the chat template.
   *
   * @throws {TemplateError} when the template raises, runs longer than its limit or writes more than its limit.
   */
  renderChat(messages: readonly ChatMessage[], options?: RenderOptions): Promise<string>;
  /**
   * Renders the chat template and tokenizes it: control tokens of the template are recognised, message contents never
   * yield control tokens.
   */
  encodeChat(messages: readonly ChatMessage[], options?: RenderOptions): Promise<Int32Array>;
  /** Bytes of every token, indexed by id: what an incremental detokenizer needs. */
  readonly vocabulary: TokenTable;
  /** Id that a prompt which is not a rendered chat begins with, for models that want one. */
  readonly bos?: number;
  /** Ids that end generation. */
  readonly eos: readonly number[];
}

/** Bytes of each token id; cheap to copy between threads. */
export interface TokenTable {
  /** Number of ids. */
  readonly size: number;
  /** Bytes of all tokens, one after the other. */
  readonly bytes: Uint8Array;
  /** Start of each token in `bytes`, `size + 1` values. */
  readonly offsets: Uint32Array;
  /** 1 where the id is a control token, whose text is not output when special tokens are skipped. */
  readonly special: Uint8Array;
}

/** The chat template raised an error or went over its limits. */
export class TemplateError extends Error {
  /** Error name. */
  override readonly name = "TemplateError";
}
