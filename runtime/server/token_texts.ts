/**
 * Texts of single tokens, as log-probability lists show them.
 *
 * @module
 */
import type { TokenTable } from "../text/codec.ts";

/** Bytes and printable forms of token ids. */
export class TokenTexts {
  readonly #table: TokenTable;
  readonly #decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  /** Bytes of the longest ordinary token. */
  readonly longestBytes: number;

  /** Reads `table`. */
  constructor(table: TokenTable) {
    this.#table = table;
    let longest = 1;
    for (let id = 0; id < table.size; id++) {
      if (table.special[id] === 0) longest = Math.max(longest, table.offsets[id + 1] - table.offsets[id]);
    }
    this.longestBytes = longest;
  }

  /** Bytes of `id`; none for an id that the tokenizer does not have. */
  bytes(id: number): Uint8Array {
    if (id >= this.#table.size) return new Uint8Array(0);
    return this.#table.bytes.subarray(this.#table.offsets[id], this.#table.offsets[id + 1]);
  }

  /** Text of `id`; `bytes:\xNN…` when its bytes are not whole characters. */
  text(id: number): string {
    const bytes = this.bytes(id);
    try {
      return this.#decoder.decode(bytes);
    } catch {
      return `bytes:${Array.from(bytes, (byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}`;
    }
  }

  /** Characters (code points) that begin in `id`. */
  characters(id: number): number {
    let count = 0;
    for (const byte of this.bytes(id)) if ((byte & 0xc0) !== 0x80) count++;
    return count;
  }

  /** Whether `id` is a control token. */
  isSpecial(id: number): boolean {
    return id < this.#table.size && this.#table.special[id] === 1;
  }
}
