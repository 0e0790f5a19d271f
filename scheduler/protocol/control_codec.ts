/**
 * Payload of the control lane: one message as JSON.
 *
 * @module
 */
import { CONTROL_SCHEMAS } from "./control_schema.ts";
import type { FrameTypeName } from "./frame.ts";
import type { FrameWriter } from "./frame_writer.ts";
import { parseJson } from "./json_payload.ts";
import type { ControlMessage } from "./messages.ts";
import { cutDetail } from "./refused_codec.ts";
import { type Schema, SchemaError, wrong } from "./schema.ts";

const controlSchema: Schema<ControlMessage> = (value) => {
  if (typeof value !== "object" || value === null || !("kind" in value) || !isKind(value.kind)) {
    throw wrong("wanted a kind of control message");
  }
  return CONTROL_SCHEMAS[value.kind](value);
};

function isKind(kind: unknown): kind is ControlMessage["kind"] {
  return typeof kind === "string" && Object.hasOwn(CONTROL_SCHEMAS, kind);
}

/**
 * Writes a control message and returns the type of its frame.
 *
 * @throws {RangeError} when the receiver would refuse it, naming the field.
 */
export function encodeControl(writer: FrameWriter, original: ControlMessage): FrameTypeName {
  const message = original.kind === "refused" ? { ...original, detail: cutDetail(original.detail) } : original;
  try {
    controlSchema(message);
  } catch (cause) {
    if (!(cause instanceof SchemaError)) throw cause;
    throw new RangeError(`Cannot encode ${message.kind}: ${cause.message}`, { cause });
  }
  const json = JSON.stringify(message);
  writer.begin(json.length);
  writer.text(json);
  return "control";
}

/** Reads a control message. @throws {PeerError} when it is not exactly one. */
export function decodeControl(payload: Uint8Array): ControlMessage {
  return parseJson(payload, controlSchema, "control message");
}
