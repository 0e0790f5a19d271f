/**
 * The kv lane's pace: one frame at a time is given to the connection, and the thread sees to its other streams in between,
 * so that nothing waits long behind KV.
 *
 * @module
 */
import { setImmediate } from "node:timers";
import type { FrameTypeName } from "../protocol/frame.ts";
import type { FrameWriter } from "../protocol/frame_writer.ts";
import type { LaneStream } from "./lane_stream.ts";

/** A frame that waits. */
interface Waiting {
  readonly writer: FrameWriter;
  readonly type: FrameTypeName;
  readonly epoch: number;
}

/** Sends frames in order, the next one when the one before has left. */
export class PacedLane {
  readonly #lane: LaneStream;
  #queue: Waiting[] = [];
  #head = 0;
  #waitingBytes = 0;
  #busy = false;

  /** Paces what is sent on `lane` from now on. */
  constructor(lane: LaneStream) {
    this.#lane = lane;
  }

  /** Bytes that wait to be sent. */
  get backlog(): number {
    return this.#waitingBytes + this.#lane.backlog;
  }

  /** Sends the frame in `writer` in its turn; the writer is the lane's again. */
  send(writer: FrameWriter, frame: { readonly type: FrameTypeName; readonly epoch: number }): void {
    this.#queue.push({ writer, ...frame });
    this.#waitingBytes += writer.length;
    if (!this.#busy) this.#next();
  }

  /** Forgets what waits. */
  clear(): void {
    this.#queue = [];
    this.#head = 0;
    this.#waitingBytes = 0;
  }

  #next(): void {
    this.#busy = this.#head < this.#queue.length;
    if (!this.#busy) {
      this.clear();
      return;
    }
    const { writer, type, epoch } = this.#queue[this.#head++];
    if (this.#head >= 1024) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    }
    this.#waitingBytes -= writer.length;
    // Callbacks of writes come before what was received: without the turn in between, KV that the connection takes at
    // once would keep the thread from its other streams.
    this.#lane.send(writer, { type, epoch }, () => setImmediate(() => this.#next()));
  }
}
