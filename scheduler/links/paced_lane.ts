/**
 * The kv lane's pace: few bytes at a time are given to the connection, so that nothing else waits long behind them.
 *
 * @module
 */
import type { FrameTypeName } from "../protocol/frame.ts";
import type { FrameWriter } from "../protocol/frame_writer.ts";
import type { LaneStream } from "./lane_stream.ts";

/** A frame that waits. */
interface Waiting {
  readonly writer: FrameWriter;
  readonly type: FrameTypeName;
  readonly epoch: number;
}

/** Sends frames in order, few at a time. */
export class PacedLane {
  readonly #lane: LaneStream;
  readonly #width: number;
  #queue: Waiting[] = [];
  #head = 0;
  #waitingBytes = 0;
  #inFlight = 0;

  /** @param width Frames given to the connection before the first of them has left. */
  constructor(lane: LaneStream, width: number) {
    this.#lane = lane;
    this.#width = width;
  }

  /** Bytes that wait to be sent. */
  get backlog(): number {
    return this.#waitingBytes + this.#lane.backlog;
  }

  /** Sends the frame in `writer` in its turn. */
  send(writer: FrameWriter, frame: { readonly type: FrameTypeName; readonly epoch: number }): void {
    this.#queue.push({ writer, ...frame });
    this.#waitingBytes += writer.length;
    this.#pump();
  }

  /** Forgets what waits. */
  clear(): void {
    this.#queue = [];
    this.#head = 0;
    this.#waitingBytes = 0;
  }

  #pump(): void {
    while (this.#inFlight < this.#width && this.#head < this.#queue.length) {
      const { writer, type, epoch } = this.#queue[this.#head++];
      if (this.#head === this.#queue.length) {
        this.#queue = [];
        this.#head = 0;
      } else if (this.#head >= 1024) {
        this.#queue = this.#queue.slice(this.#head);
        this.#head = 0;
      }
      this.#waitingBytes -= writer.length;
      this.#inFlight++;
      this.#lane.send(writer, { type, epoch }, () => {
        this.#inFlight--;
        this.#pump();
      });
    }
  }
}
