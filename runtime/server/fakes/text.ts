/**
 * A byte-level codec for tests: id b is byte b, control tokens follow.
 *
 * @module
 */
import type { ChatMessage, RenderOptions, TextCodec, TokenTable } from "../../text/codec.ts";

/** Control tokens from id 256 on. */
export const CONTROL_TOKENS: readonly string[] = ["<|im_start|>", "<|im_end|>", "<s>"];

/** Ids of the fake's vocabulary. */
export const FAKE_VOCABULARY: number = 256 + CONTROL_TOKENS.length;

const CONTROL_PATTERN = /(<\|im_start\|>|<\|im_end\|>|<s>)/;

/** Tokenizes bytes and renders ChatML. */
export class FakeText implements TextCodec {
  readonly vocabulary: TokenTable = byteTable();
  readonly bos?: number;
  readonly eos: readonly number[] = [];
  /** Replaces rendering. */
  render?: (messages: readonly ChatMessage[], options?: RenderOptions) => string;
  /** Options of the last rendering. */
  lastRender: RenderOptions | undefined;
  /** Texts that were tokenized. */
  readonly encoded: string[] = [];

  constructor(options: { readonly bos?: number } = {}) {
    this.bos = options.bos;
  }

  encode(text: string, options: { readonly parseSpecial?: boolean } = {}): Promise<Int32Array> {
    this.encoded.push(text);
    const parts = options.parseSpecial ? text.split(CONTROL_PATTERN) : [text];
    return Promise.resolve(Int32Array.from(parts.flatMap((part) => {
      const control = CONTROL_TOKENS.indexOf(part);
      return options.parseSpecial && control >= 0 ? [256 + control] : Array.from(new TextEncoder().encode(part));
    })));
  }

  decode(ids: ArrayLike<number>, options: { readonly skipSpecial?: boolean } = {}): Promise<string> {
    const bytes = Array.from(ids).flatMap((id) => {
      if (id < 256) return [id];
      return options.skipSpecial ? [] : Array.from(new TextEncoder().encode(CONTROL_TOKENS[id - 256]));
    });
    return Promise.resolve(new TextDecoder().decode(Uint8Array.from(bytes)));
  }

  renderChat(messages: readonly ChatMessage[], options?: RenderOptions): Promise<string> {
    this.lastRender = options;
    try {
      return Promise.resolve(this.render?.(messages, options) ?? chatMl(messages, options));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  async encodeChat(messages: readonly ChatMessage[], options?: RenderOptions): Promise<Int32Array> {
    return await this.encode(await this.renderChat(messages, options), { parseSpecial: true });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}

function chatMl(messages: readonly ChatMessage[], options: RenderOptions = {}): string {
  const turns = messages.map(({ role, content }) => `<|im_start|>${role}\n${content}<|im_end|>\n`).join("");
  return options.addGenerationPrompt === false ? turns : `${turns}<|im_start|>assistant\n`;
}

function byteTable(): TokenTable {
  const controls = CONTROL_TOKENS.map((text) => new TextEncoder().encode(text));
  const lengths = [...new Array<number>(256).fill(1), ...controls.map((bytes) => bytes.length)];
  const offsets = new Uint32Array(FAKE_VOCABULARY + 1);
  for (const [id, length] of lengths.entries()) offsets[id + 1] = offsets[id] + length;
  const bytes = new Uint8Array(offsets[FAKE_VOCABULARY]);
  for (let id = 0; id < 256; id++) bytes[id] = id;
  for (const [index, control] of controls.entries()) bytes.set(control, offsets[256 + index]);
  const special = new Uint8Array(FAKE_VOCABULARY).fill(1, 256);
  return { size: FAKE_VOCABULARY, bytes, offsets, special };
}
