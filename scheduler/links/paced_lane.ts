/**
 * The kv lane's pace: a few frames at a time are given to the connection, and the thread sees to its other streams in
 * between, so that nothing waits long behind KV. A thread that computes comes back rarely: it then gives as many as it
 * could have given meanwhile.
 *
 * @module
 */
import { setImmediate } from "node:timers";
import type { FrameTypeName } from "../protocol/frame.ts";
import type { FrameWriter } from "../protocol/frame_writer.ts";
import type { LaneStream } from "./lane_stream.ts";

/** Bytes given away at most after a pause of so many milliseconds. */
const BYTES_PER_MS = 128 * 1024;
/** Bytes given away at once at most, however long the pause was. */
const MOST_AT_ONCE = 256 * 1024;

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
  #atMs = 0;

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
    const now = performance.now();
    const most = Math.min(MOST_AT_ONCE, (now - this.#atMs) * BYTES_PER_MS);
    this.#atMs = now;
    for (let given = 0, last = false; !last;) {
      const { writer, type, epoch } = this.#queue[this.#head++];
      this.#waitingBytes -= writer.length;
      given += writer.length;
      last = given >= most || this.#head === this.#queue.length;
      // Callbacks of writes come before what was received: without the turn in between, KV that the connection takes at
      // once would keep the thread from its other streams.
      this.#lane.send(writer, { type, epoch }, last ? () => setImmediate(() => this.#next()) : undefined);
    }
    if (this.#head >= 1024) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    }
  }
}
