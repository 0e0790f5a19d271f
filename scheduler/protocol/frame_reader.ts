/**
 * Cuts a stream of bytes into frames and checks them before anybody looks at a payload.
 *
 * @module
 */
import { createHmac, type KeyObject } from "node:crypto";
import { PeerError } from "../links/link.ts";
import {
  type Frame,
  FRAME_HEADER_BYTES,
  FRAME_LANES,
  FRAME_MAGIC,
  FRAME_TAG_BYTES,
  FRAME_TAGGED,
  type FrameLane,
  type FrameTypeName,
  frameTypeName,
} from "./frame.ts";
import { PROTOCOL_VERSION } from "./messages.ts";

/** Of a frame that has not come whole yet, this much is set aside before its bytes are there. */
const STEP_BYTES = 64 * 1024;

/** A buffer larger than this is not kept for the next frame. */
const KEPT_BYTES = 16 * 2 ** 20;

/** What a reader expects of a stream. */
export interface FrameExpectation {
  /** The lane every frame names. */
  readonly lane: FrameLane;
  /** Key of the lane and direction; without one, a frame with a tag is refused. */
  readonly key?: KeyObject;
  /** Largest payload, bytes. */
  readonly maxPayloadBytes: number;
}

/** A frame of another version of the protocol. Told apart so that a hello can say which one was wanted. */
export class VersionError extends PeerError {
  /** The version that came. */
  readonly version: number;
  /** Makes one. */
  constructor(version: number) {
    super(`Cannot read frame: wanted version ${PROTOCOL_VERSION} of the protocol, got ${version}`, {
      code: "protocol",
    });
    this.version = version;
  }
}

function word(bytes: Uint8Array, at: number): number {
  return (bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16 | bytes[at + 3] << 24) >>> 0;
}

function number64(bytes: Uint8Array, at: number, what: string): number {
  const high = word(bytes, at + 4);
  if (high >= 2 ** 21) {
    throw new PeerError(`Cannot read frame: wanted ${what} below 2^53, got ${high * 2 ** 32 + word(bytes, at)}`, {
      code: "protocol",
    });
  }
  return high * 2 ** 32 + word(bytes, at);
}

/** Reads the frames of one stream in one direction. After an error it reads no more. */
export class FrameReader {
  #expected: FrameExpectation;
  #counter = 0;
  #closed = false;
  #buffer = new Uint8Array(0);
  #filled = 0;

  /** @param expected What the stream carries. */
  constructor(expected: FrameExpectation) {
    this.#expected = expected;
  }

  /** From the next frame on, the stream carries this, counted from 0 again. */
  expect(expected: FrameExpectation): void {
    this.#expected = expected;
    this.#counter = 0;
  }

  /** Reads no more. */
  close(): void {
    this.#closed = true;
    this.#buffer = new Uint8Array(0);
    this.#filled = 0;
  }

  /** Whether part of a frame has come and the rest has not. */
  get midFrame(): boolean {
    return this.#filled > 0;
  }

  /**
   * Takes the next bytes and calls `deliver` with each frame that is whole, in order.
   *
   * @throws {PeerError} `protocol` or `auth`, when the bytes are not the expected frame; also what `deliver` throws.
   */
  push(chunk: Uint8Array, deliver: (frame: Frame) => void): void {
    try {
      let at = 0;
      while (at < chunk.length && !this.#closed) {
        if (this.#filled > 0) {
          at += this.#append(chunk, at, deliver);
          continue;
        }
        const left = chunk.length - at;
        const total = left < FRAME_HEADER_BYTES ? Infinity : this.#frameBytes(chunk, at);
        if (left < total) {
          at += this.#append(chunk, at, deliver);
          continue;
        }
        deliver(this.#open(chunk.subarray(at, at + total)));
        at += total;
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Moves bytes from `chunk` to the buffer, delivers the frame when it is whole, returns how many were moved. */
  #append(chunk: Uint8Array, at: number, deliver: (frame: Frame) => void): number {
    let wanted = FRAME_HEADER_BYTES;
    if (this.#filled >= FRAME_HEADER_BYTES) wanted = this.#frameBytes(this.#buffer, 0);
    const moved = Math.min(wanted - this.#filled, chunk.length - at);
    this.#grow(this.#filled + moved, wanted);
    this.#buffer.set(chunk.subarray(at, at + moved), this.#filled);
    this.#filled += moved;
    if (this.#filled < FRAME_HEADER_BYTES) return moved;
    if (this.#filled === this.#frameBytes(this.#buffer, 0)) {
      const bytes = this.#buffer.subarray(0, this.#filled);
      this.#filled = 0;
      if (this.#buffer.length > KEPT_BYTES) this.#buffer = new Uint8Array(0);
      deliver(this.#open(bytes));
    }
    return moved;
  }

  /** A length that a peer only claims sets aside no more than twice what has come. */
  #grow(filled: number, wanted: number): void {
    if (filled <= this.#buffer.length) return;
    const grown = new Uint8Array(Math.max(filled, Math.min(wanted, Math.max(STEP_BYTES, 2 * filled))));
    grown.set(this.#buffer.subarray(0, this.#filled));
    this.#buffer = grown;
  }

  /** Bytes of the frame whose header lies at `at`, which is checked. */
  #frameBytes(bytes: Uint8Array, at: number): number {
    const { lane, key, maxPayloadBytes } = this.#expected;
    if (word(bytes, at) !== FRAME_MAGIC) {
      throw new PeerError(
        `Cannot read frame: wanted magic ${FRAME_MAGIC.toString(16)}, got ${word(bytes, at).toString(16)}`,
        { code: "protocol" },
      );
    }
    if (bytes[at + 4] !== PROTOCOL_VERSION) throw new VersionError(bytes[at + 4]);
    if (FRAME_LANES[bytes[at + 5]] !== lane) {
      throw new PeerError(
        `Cannot read frame: wanted lane ${lane}, got ${FRAME_LANES[bytes[at + 5]] ?? bytes[at + 5]}`,
        { code: "protocol" },
      );
    }
    if (bytes[at + 7] !== (key === undefined ? 0 : FRAME_TAGGED) || word(bytes, at + 28) !== 0) {
      throw new PeerError(
        `Cannot read frame: wanted flags ${key === undefined ? 0 : FRAME_TAGGED} and 0, got ${bytes[at + 7]} and ${
          word(bytes, at + 28)
        }`,
        { code: key === undefined ? "protocol" : "auth" },
      );
    }
    const length = word(bytes, at + 24);
    if (length > maxPayloadBytes) {
      throw new PeerError(
        `Cannot read frame: wanted at most ${maxPayloadBytes} bytes on lane ${lane}, got ${length}`,
        { code: "protocol" },
      );
    }
    return FRAME_HEADER_BYTES + length + (key === undefined ? 0 : FRAME_TAG_BYTES);
  }

  /** Checks type, counter and tag of a whole frame. */
  #open(bytes: Uint8Array): Frame {
    const { lane, key } = this.#expected;
    const end = key === undefined ? bytes.length : bytes.length - FRAME_TAG_BYTES;
    if (key !== undefined) {
      const digest = createHmac("sha256", key).update(bytes.subarray(0, end)).digest();
      let differs = 0;
      for (let i = 0; i < FRAME_TAG_BYTES; i++) differs |= digest[i] ^ bytes[end + i];
      if (differs !== 0) {
        throw new PeerError(`Cannot read frame: the tag does not fit lane ${lane} of this link`, { code: "auth" });
      }
    }
    const counter = number64(bytes, 16, "a counter");
    if (counter !== this.#counter) {
      throw new PeerError(`Cannot read frame: wanted counter ${this.#counter} on lane ${lane}, got ${counter}`, {
        code: key === undefined ? "protocol" : "auth",
      });
    }
    this.#counter++;
    const type: FrameTypeName | undefined = frameTypeName(lane, bytes[6]);
    if (type === undefined) {
      throw new PeerError(`Cannot read frame: wanted a type of lane ${lane}, got ${bytes[6]}`, { code: "protocol" });
    }
    return { type, epoch: number64(bytes, 8, "an epoch"), payload: bytes.subarray(FRAME_HEADER_BYTES, end) };
  }
}
