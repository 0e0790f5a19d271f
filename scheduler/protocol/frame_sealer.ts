/**
 * Gives frames their header, counter and tag.
 *
 * @module
 */
import { createHmac, type KeyObject } from "node:crypto";
import { PROTOCOL_VERSION } from "./messages.ts";
import {
  FRAME_HEADER_BYTES,
  FRAME_LANES,
  FRAME_MAGIC,
  FRAME_TAG_BYTES,
  FRAME_TAGGED,
  FRAME_TYPES,
  type FrameLane,
  type FrameTypeName,
} from "./frame.ts";
import type { FrameWriter } from "./frame_writer.ts";

/** Seals the frames of one stream in one direction. */
export class FrameSealer {
  readonly #lane: FrameLane;
  readonly #key: KeyObject | undefined;
  #counter = 0;

  /** @param key Key of this lane and direction; without one, frames carry no tag. */
  constructor(lane: FrameLane, key?: KeyObject) {
    this.#lane = lane;
    this.#key = key;
  }

  /**
   * Completes the frame in `writer` and returns it: a view, valid until the writer begins another. The frame counts as
   * sent: send it before the next one.
   */
  seal(writer: FrameWriter, type: FrameTypeName, epoch: number): Uint8Array<ArrayBuffer> {
    const { length } = writer;
    const counter = this.#counter++;
    writer.setWord(0, FRAME_MAGIC);
    writer.setWord(
      1,
      PROTOCOL_VERSION | FRAME_LANES.indexOf(this.#lane) << 8 | FRAME_TYPES[type] << 16 |
        (this.#key ? FRAME_TAGGED << 24 : 0),
    );
    writer.setWord(2, epoch);
    writer.setWord(3, epoch / 2 ** 32);
    writer.setWord(4, counter);
    writer.setWord(5, counter / 2 ** 32);
    writer.setWord(6, length - FRAME_HEADER_BYTES);
    writer.setWord(7, 0);
    if (this.#key === undefined) return writer.buffer.subarray(0, length);
    const digest = createHmac("sha256", this.#key).update(writer.buffer.subarray(0, length)).digest();
    writer.buffer.set(digest.subarray(0, FRAME_TAG_BYTES), length);
    return writer.buffer.subarray(0, length + FRAME_TAG_BYTES);
  }
}
