/**
 * Messages in frames, whatever their lane.
 *
 * @module
 */
import { PeerError } from "../links/link.ts";
import { decodeAttention, encodeAttention } from "./attention_codec.ts";
import { decodeControl, encodeControl } from "./control_codec.ts";
import type { Frame, FrameTypeName } from "./frame.ts";
import type { FrameWriter } from "./frame_writer.ts";
import { decodeKv, encodeKv } from "./kv_codec.ts";
import type { KvFormat } from "./member.ts";
import { MessageError } from "./message_error.ts";
import type { AttentionMessage, ControlMessage, KvMessage, Lane, Message, Refused } from "./messages.ts";

/** A message with its lane: `refused` belongs to all of them. */
export type LaneMessage =
  | { readonly lane: "attention"; readonly message: AttentionMessage }
  | { readonly lane: "control"; readonly message: ControlMessage }
  | { readonly lane: "kv"; readonly message: KvMessage };

/**
 * Writes a message and returns the type of its frame.
 *
 * @throws {RangeError} when the receiver would refuse it, as far as that can be seen cheaply.
 */
export function encodeMessage(writer: FrameWriter, of: LaneMessage): FrameTypeName {
  switch (of.lane) {
    case "attention":
      return encodeAttention(writer, of.message);
    case "control":
      return encodeControl(writer, of.message);
    case "kv":
      return encodeKv(writer, of.message);
  }
}

/**
 * Reads the message of a frame; its arrays are views of the payload.
 *
 * @param format Format of the KV on the link.
 * @throws {MessageError} when the frame and call are sound and the content is not.
 * @throws {PeerError} `protocol`, when there is no message.
 */
export function decodeMessage(lane: Lane, frame: Pick<Frame, "type" | "payload">, format?: KvFormat): Message {
  switch (lane) {
    case "attention":
      return decodeAttention(frame.type, frame.payload, format);
    case "control":
      return decodeControl(frame.payload);
    case "kv":
      return decodeKv(frame.type, frame.payload, format);
  }
}

/** What to do with a frame: tell a message, or answer a request that cannot be what it says. */
export type Receipt =
  | { readonly kind: "message"; readonly message: Message }
  | { readonly kind: "answer"; readonly refused: Refused };

/**
 * Reads the message of a frame where it can be read. A request with unsound content is to be answered `refused`; an
 * answer with unsound content is told as `refused` of its call, so that whoever waits for it goes on.
 *
 * @throws {PeerError} `protocol`, when the peer broke the protocol.
 */
export function receiveMessage(lane: Lane, frame: Pick<Frame, "type" | "payload">, format?: KvFormat): Receipt {
  try {
    return { kind: "message", message: decodeMessage(lane, frame, format) };
  } catch (error) {
    if (!(error instanceof MessageError)) throw error;
    const refused: Refused = { kind: "refused", call: error.call, code: error.code, detail: error.message };
    switch (frame.type) {
      case "attend":
      case "commit":
      case "read":
        return { kind: "answer", refused };
      case "partials":
        return { kind: "message", message: refused };
      default:
        throw new PeerError(error.message, { code: "protocol", cause: error });
    }
  }
}
