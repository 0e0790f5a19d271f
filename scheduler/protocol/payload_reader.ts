/**
 * Reads the payload of a frame, value by value.
 *
 * @module
 */
import { PeerError } from "../links/link.ts";
import { MessageError } from "./message_error.ts";
import type { RefusalCode } from "./messages.ts";

const TEXT = new TextDecoder("utf-8", { fatal: true });

/** A cursor over a payload. A read past the end throws what {@linkcode PayloadReader.error} makes. */
export class PayloadReader {
  readonly #bytes: Uint8Array;
  readonly #what: string;
  #at = 0;
  #call: number | undefined;

  /** @param what The message, for errors. */
  constructor(bytes: Uint8Array, what: string) {
    this.#bytes = bytes;
    this.#what = what;
  }

  /** Bytes not read yet. */
  get left(): number {
    return this.#bytes.length - this.#at;
  }

  /**
   * An error that names the message: a `protocol` error of the peer until the call was read, a {@linkcode MessageError}
   * from then on.
   */
  error(detail: string, code: RefusalCode = "bad_shape"): PeerError | MessageError {
    const text = `Cannot decode ${this.#what}: ${detail}`;
    if (this.#call === undefined) return new PeerError(text, { code: "protocol" });
    return new MessageError(text, { code, call: this.#call });
  }

  /** Reads the call of the message. */
  call(): number {
    const call = this.u64();
    this.#call = call;
    return call;
  }

  /** Reads an unsigned number below 2^32. */
  u32(): number {
    const at = this.#take(4);
    const b = this.#bytes;
    return (b[at] | b[at + 1] << 8 | b[at + 2] << 16 | b[at + 3] << 24) >>> 0;
  }

  /** Reads an unsigned number below 2^53. */
  u64(): number {
    const low = this.u32();
    const high = this.u32();
    if (high >= 2 ** 21) throw this.error(`wanted a number below 2^53, got ${high * 2 ** 32 + low}`);
    return high * 2 ** 32 + low;
  }

  /** Reads `count` numbers: a view where they are aligned in memory, otherwise a copy. */
  floats(count: number): Float32Array {
    const at = this.#take(count * 4);
    const { buffer, byteOffset } = this.#bytes;
    if ((byteOffset + at) % 4 === 0) return new Float32Array(buffer, byteOffset + at, count);
    // Not a slice: that of a Buffer, which sockets give, is a view and its buffer holds other things too.
    const copy = new Float32Array(count);
    new Uint8Array(copy.buffer).set(this.#bytes.subarray(at, at + count * 4));
    return copy;
  }

  /** Reads `count` bytes: a view. */
  bytes(count: number): Uint8Array {
    const at = this.#take(count);
    return this.#bytes.subarray(at, at + count);
  }

  /** Reads the rest as UTF-8. */
  text(maxBytes: number): string {
    if (this.left > maxBytes) throw this.error(`wanted at most ${maxBytes} bytes of text, got ${this.left}`);
    try {
      return TEXT.decode(this.bytes(this.left));
    } catch {
      throw this.error("the text is not UTF-8");
    }
  }

  /** Throws unless everything was read. */
  end(): void {
    if (this.left > 0) throw this.error(`${this.left} bytes too many`);
  }

  #take(count: number): number {
    const at = this.#at;
    if (count > this.#bytes.length - at) {
      throw this.error(`wanted ${count} bytes at ${at}, got ${this.#bytes.length - at}`);
    }
    this.#at = at + count;
    return at;
  }
}
