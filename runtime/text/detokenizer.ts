/**
 * Token ids to text, one id at a time.
 *
 * @module
 */
import type { TokenTable } from "./codec.ts";

/**
 * Turns a stream of ids into text that is always whole: bytes of an unfinished UTF-8 character wait for the next id.
 * Bytes that cannot be UTF-8 become one U+FFFD per maximal subpart, as in `TextDecoder` and Python's decoder. An id
 * beyond the table (the embedding may have padding rows) has no text.
 */
export class Detokenizer {
  readonly #table: TokenTable;
  readonly #skipSpecial: boolean;
  /** Continuation bytes that the character begun still needs, 0 when none is begun. */
  #needed = 0;
  #codePoint = 0;
  /** Range of the next continuation byte; narrower than 80..BF after E0, ED, F0 and F4. */
  #lower = 0x80;
  #upper = 0xbf;

  /** Makes one; `skipSpecial` leaves control tokens out of the text. */
  constructor(table: TokenTable, options: { readonly skipSpecial?: boolean } = {}) {
    this.#table = table;
    this.#skipSpecial = options.skipSpecial ?? false;
  }

  /** Text that became certain with `id`. */
  push(id: number): string {
    const { bytes, offsets, size, special } = this.#table;
    if (id < 0 || id >= size || (this.#skipSpecial && special[id] === 1)) return "";
    let text = "";
    const end = offsets[id + 1];
    for (let i = offsets[id]; i < end; i++) {
      const byte = bytes[i];
      text += this.#needed === 0 ? (byte < 0x80 ? String.fromCharCode(byte) : this.#begin(byte)) : this.#continue(byte);
    }
    return text;
  }

  /** U+FFFD when the stream ended inside a character, else nothing. The detokenizer is then as new. */
  flush(): string {
    if (this.#needed === 0) return "";
    this.#needed = 0;
    return "\ufffd";
  }

  #begin(byte: number): string {
    if (byte < 0x80) return String.fromCharCode(byte);
    if (byte < 0xc2 || byte > 0xf4) return "\ufffd";
    this.#lower = byte === 0xe0 ? 0xa0 : byte === 0xf0 ? 0x90 : 0x80;
    this.#upper = byte === 0xed ? 0x9f : byte === 0xf4 ? 0x8f : 0xbf;
    this.#needed = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
    this.#codePoint = byte & (0x3f >> this.#needed);
    return "";
  }

  #continue(byte: number): string {
    if (byte < this.#lower || byte > this.#upper) {
      this.#needed = 0;
      return "\ufffd" + this.#begin(byte);
    }
    this.#lower = 0x80;
    this.#upper = 0xbf;
    this.#codePoint = (this.#codePoint << 6) | (byte & 0x3f);
    return --this.#needed === 0 ? String.fromCodePoint(this.#codePoint) : "";
  }
}
