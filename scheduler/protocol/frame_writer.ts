/**
 * Writes the payload of one frame after the other into one buffer that grows.
 *
 * @module
 */
import { FRAME_HEADER_BYTES, FRAME_TAG_BYTES } from "./frame.ts";

const TEXT = new TextEncoder();

if (new Uint8Array(new Uint32Array([1]).buffer)[0] !== 1) {
  throw new Error("Cannot encode frames: wanted a little-endian machine, got a big-endian one");
}

/** Two numbers of 32 bits hold one below 2^53. */
const HIGH = 2 ** 32;

/** A growing buffer with the bytes of one frame. Everything but the last value written is a multiple of 4 bytes long. */
export class FrameWriter {
  #bytes: Uint8Array<ArrayBuffer>;
  #words: Uint32Array;
  #floats: Float32Array;
  #length = FRAME_HEADER_BYTES;

  /** @param capacity Bytes to begin with. */
  constructor(capacity: number = 8192) {
    const buffer = new ArrayBuffer(Math.ceil(capacity / 4) * 4);
    this.#bytes = new Uint8Array(buffer);
    this.#words = new Uint32Array(buffer);
    this.#floats = new Float32Array(buffer);
  }

  /** Bytes it holds without growing. */
  get capacity(): number {
    return this.#bytes.length;
  }

  /** Bytes of the frame so far, its header included. */
  get length(): number {
    return this.#length;
  }

  /** Begins a frame whose payload has about `payloadBytes`. */
  begin(payloadBytes: number): void {
    this.#length = FRAME_HEADER_BYTES;
    this.#reserve(payloadBytes);
  }

  /** The whole buffer, at least {@linkcode length} and a tag long; valid until the next write. */
  get buffer(): Uint8Array<ArrayBuffer> {
    return this.#bytes;
  }

  /** Writes word `index` of the frame, for its header. */
  setWord(index: number, value: number): void {
    this.#words[index] = value;
  }

  /** Appends an unsigned integer below 2^32. @throws {RangeError} when it is not one. */
  u32(value: number): void {
    if (value >>> 0 !== value) throw new RangeError(`Cannot encode number: wanted an integer below 2^32, got ${value}`);
    this.#reserve(4);
    this.#words[this.#length >>> 2] = value;
    this.#length += 4;
  }

  /** Appends an unsigned integer below 2^53 as two words, low first. @throws {RangeError} when it is not one. */
  u64(value: number): void {
    if (!Number.isSafeInteger(value) || value < 0) {
      throw new RangeError(`Cannot encode number: wanted an integer below 2^53, got ${value}`);
    }
    this.#reserve(8);
    const at = this.#length >>> 2;
    this.#words[at] = value;
    this.#words[at + 1] = value / HIGH;
    this.#length += 8;
  }

  /** Appends numbers. */
  floats(values: Float32Array): void {
    this.#reserve(values.byteLength);
    this.#floats.set(values, this.#length >>> 2);
    this.#length += values.byteLength;
  }

  /** Appends bytes. */
  bytes(values: Uint8Array): void {
    this.#reserve(values.length);
    this.#bytes.set(values, this.#length);
    this.#length += values.length;
  }

  /** Appends text as UTF-8. */
  text(value: string): void {
    this.#reserve(value.length * 3);
    this.#length += TEXT.encodeInto(value, this.#bytes.subarray(this.#length)).written;
  }

  #reserve(bytes: number): void {
    const wanted = this.#length + bytes + FRAME_TAG_BYTES;
    if (wanted <= this.#bytes.length) return;
    const buffer = new ArrayBuffer(Math.ceil(Math.max(wanted, this.#bytes.length * 2) / 4) * 4);
    const grown = new Uint8Array(buffer);
    grown.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = grown;
    this.#words = new Uint32Array(buffer);
    this.#floats = new Float32Array(buffer);
  }
}
