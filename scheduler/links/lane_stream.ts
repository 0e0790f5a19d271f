/**
 * One lane of a link over one HTTP/2 stream.
 *
 * @module
 */
import type { ClientHttp2Stream, ServerHttp2Stream } from "node:http2";
import { setImmediate } from "node:timers";
import type { Frame, FrameTypeName } from "../protocol/frame.ts";
import { type FrameExpectation, FrameReader } from "../protocol/frame_reader.ts";
import type { FrameSealer } from "../protocol/frame_sealer.ts";
import { FrameWriter } from "../protocol/frame_writer.ts";
import { PeerError } from "./link.ts";

/** Either end of a stream. */
export type Http2Stream = ClientHttp2Stream | ServerHttp2Stream;

/** Buffers kept for later frames. */
const KEPT_WRITERS = 64;

/** A buffer larger than this is not kept. */
const KEPT_BYTES = 4 * 2 ** 20;

/** What a lane tells its owner; never from inside a call to the lane. */
export interface LaneHandler {
  /** A frame came and was checked. Its payload is valid during the call only. */
  frame(frame: Frame): void;
  /** The stream is over: the peer ended it, the connection broke, or the bytes were not frames. Told once. */
  over(error: PeerError): void;
}

/** Writes and reads the frames of one stream. */
export class LaneStream {
  readonly #stream: Http2Stream;
  readonly #reader: FrameReader;
  readonly #writers: FrameWriter[] = [];
  #sealer: FrameSealer;
  #handler: LaneHandler;
  #over = false;
  /** Writes that have not left. */
  #pending = 0;
  #drained: (() => void) | undefined;

  /** Takes the stream over. */
  constructor(
    stream: Http2Stream,
    options: { readonly expect: FrameExpectation; readonly sealer: FrameSealer; readonly handler: LaneHandler },
  ) {
    this.#stream = stream;
    this.#reader = new FrameReader(options.expect);
    this.#sealer = options.sealer;
    this.#handler = options.handler;
    // A plain array over the same bytes: the slice of a Buffer is a view, that of an array a copy.
    stream.on(
      "data",
      ({ buffer, byteOffset, length }: Uint8Array) => this.#take(new Uint8Array(buffer, byteOffset, length)),
    );
    stream.on("end", () => this.#end(new PeerError("The peer ended the stream", { code: "closed" })));
    const closed = () => this.#end(new PeerError("The stream closed", { code: "closed" }));
    stream.on("close", closed);
    // A stream does not always hear that its connection closed (Deno 2.9); the turn lets it hand out what came before.
    stream.session?.once("close", () => setImmediate(closed));
    stream.on("error", (cause: Error) => {
      this.#end(new PeerError(`The stream broke: ${cause.message}`, { code: "closed", cause }));
    });
  }

  /** Bytes that wait to be sent. */
  get backlog(): number {
    return this.#stream.writableLength;
  }

  /** From now on the stream carries this, and `handler` is told. */
  become(
    options: { readonly expect: FrameExpectation; readonly sealer: FrameSealer; readonly handler: LaneHandler },
  ): void {
    this.#reader.expect(options.expect);
    this.#sealer = options.sealer;
    this.#handler = options.handler;
  }

  /** From now on `handler` is told. */
  handOver(handler: LaneHandler): void {
    this.#handler = handler;
  }

  /** A buffer to encode a frame into. */
  takeWriter(): FrameWriter {
    return this.#writers.pop() ?? new FrameWriter();
  }

  /** Gives a buffer back that was not sent. */
  keepWriter(writer: FrameWriter): void {
    if (this.#writers.length < KEPT_WRITERS && writer.capacity <= KEPT_BYTES) this.#writers.push(writer);
  }

  /** Seals and sends the frame in `writer`, which is the lane's again. `sent` is called once it has left. */
  send(writer: FrameWriter, frame: { readonly type: FrameTypeName; readonly epoch: number }, sent?: () => void): void {
    this.#write(this.#sealer.seal(writer, frame.type, frame.epoch), () => {
      this.keepWriter(writer);
      sent?.();
    });
  }

  /** Sends a frame without a payload. */
  sendEmpty(type: FrameTypeName, epoch: number): void {
    const writer = this.takeWriter();
    writer.begin(0);
    this.send(writer, { type, epoch });
  }

  /** Sends a frame that somebody else sealed. */
  sendSealed(bytes: Uint8Array): void {
    this.#write(bytes);
  }

  /**
   * Tells nothing more. The stream is left to the end of its connection: ending streams of a connection that is destroyed
   * soon after takes the process down (Deno 2.9).
   */
  stop(): void {
    this.#over = true;
    this.#reader.close();
  }

  /** Tells nothing more, and calls `gone` when what was sent has left. */
  drain(gone: () => void): void {
    this.stop();
    if (this.#pending === 0) gone();
    else this.#drained = gone;
  }

  #write(bytes: Uint8Array, sent?: () => void): void {
    this.#pending++;
    this.#stream.write(bytes, () => {
      this.#pending--;
      sent?.();
      if (this.#pending === 0) this.#drained?.();
    });
  }

  #take(chunk: Uint8Array): void {
    if (this.#over) return;
    let telling = false;
    try {
      this.#reader.push(chunk, (frame) => {
        if (this.#over) return;
        telling = true;
        this.#handler.frame(frame);
        telling = false;
      });
    } catch (error) {
      if (telling || !(error instanceof PeerError)) throw error;
      this.#end(error);
    }
  }

  #end(error: PeerError): void {
    if (this.#over) return;
    this.#over = true;
    const cut = this.#reader.midFrame && error.code === "closed";
    this.#reader.close();
    this.#handler.over(cut ? new PeerError(`${error.message} in the middle of a frame`, { code: "protocol" }) : error);
  }
}
