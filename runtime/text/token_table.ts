/**
 * Builds the table of token bytes from a tokenizer's vocabulary.
 *
 * @module
 */
import { characterBytes } from "./byte_alphabet.ts";
import type { TokenTable } from "./codec.ts";
import type { TokenizerSpec } from "./tokenizer_json.ts";

/**
 * Bytes of every token: the GPT-2 alphabet for byte-level vocabularies; otherwise the token's text with U+2581 as space
 * and `<0xNN>` as one byte where the tokenizer falls back to bytes. Added tokens are their own text. Ids without a token
 * are empty.
 */
export function buildTokenTable(spec: TokenizerSpec): TokenTable {
  const bytesOf = spec.byteLevel ? byteLevelBytes() : metaspaceBytes(spec.byteFallback);
  const tokens: Uint8Array[] = [];
  for (const [text, id] of spec.model.vocab) tokens[id] = bytesOf(text);
  const encoder = new TextEncoder();
  for (const { id, content } of spec.added) tokens[id] = encoder.encode(content);

  const size = tokens.length;
  const offsets = new Uint32Array(size + 1);
  for (let id = 0; id < size; id++) offsets[id + 1] = offsets[id] + (tokens[id]?.length ?? 0);
  const bytes = new Uint8Array(offsets[size]);
  for (let id = 0; id < size; id++) if (tokens[id] !== undefined) bytes.set(tokens[id], offsets[id]);
  const special = new Uint8Array(size);
  for (const { id, control } of spec.added) if (control) special[id] = 1;
  return { size, bytes, offsets, special };
}

function byteLevelBytes(): (text: string) => Uint8Array {
  const encoder = new TextEncoder();
  const byteOfCode = characterBytes();
  return (text) => {
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) {
      const byte = byteOfCode[text.charCodeAt(i)];
      // A token outside the alphabet was added to the vocabulary as plain text.
      if (byte === undefined || byte < 0) return encoder.encode(text);
      bytes[i] = byte;
    }
    return bytes;
  };
}

function metaspaceBytes(byteFallback: boolean): (text: string) => Uint8Array {
  const encoder = new TextEncoder();
  return (text) => {
    const byte = byteFallback ? /^<0x([0-9A-Fa-f]{2})>$/.exec(text) : null;
    return byte === null ? encoder.encode(text.replaceAll("\u2581", " ")) : Uint8Array.of(parseInt(byte[1], 16));
  };
}
