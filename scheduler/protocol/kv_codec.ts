/**
 * Payloads of the kv lane.
 *
 * ```text
 * piece    call u64, slot run, offset u64, bytes
 * commit   call u64, slot run, SHA-256 (32 bytes)
 * written  call u64
 * read     call u64, slot run
 * sent     call u64, SHA-256 (32 bytes)
 * ```
 *
 * @module
 */
import { MAX_PIECE_BYTES, PIECE_HEAD_BYTES } from "./frame.ts";
import type { FrameTypeName } from "./frame.ts";
import type { FrameWriter } from "./frame_writer.ts";
import type { KvFormat } from "./member.ts";
import type { KvMessage, SlotRun } from "./messages.ts";
import { PayloadReader } from "./payload_reader.ts";
import { decodeRefused, encodeRefused } from "./refused_codec.ts";
import { decodeSlotRun, encodeSlotRun } from "./slot_run_codec.ts";

const DIGEST_BYTES = 32;

/** What shapes the slots on a link. */
export type SlotFormat = Pick<KvFormat, "segmentTokens" | "blockTokens" | "blockBytes">;

/** Bytes of one slot. */
export function slotBytes(format: SlotFormat): number {
  return format.segmentTokens / format.blockTokens * format.blockBytes;
}

/** A message of the kv lane as what fits frames: a piece longer than {@linkcode MAX_PIECE_BYTES} becomes several. */
export function* cutPieces(message: KvMessage): Generator<KvMessage> {
  if (message.kind !== "piece" || message.bytes.length <= MAX_PIECE_BYTES) {
    yield message;
    return;
  }
  for (let at = 0; at < message.bytes.length; at += MAX_PIECE_BYTES) {
    yield { ...message, offset: message.offset + at, bytes: message.bytes.subarray(at, at + MAX_PIECE_BYTES) };
  }
}

/** Writes a message of the kv lane and returns the type of its frame. @throws {RangeError} when it is not one. */
export function encodeKv(writer: FrameWriter, message: KvMessage): FrameTypeName {
  if (message.kind === "refused") {
    encodeRefused(writer, message);
    return message.kind;
  }
  writer.begin(PIECE_HEAD_BYTES + (message.kind === "piece" ? message.bytes.length : DIGEST_BYTES));
  writer.u64(message.call);
  switch (message.kind) {
    case "piece":
      encodeSlot(writer, message.run);
      writer.u64(message.offset);
      writer.bytes(message.bytes);
      break;
    case "commit":
      encodeSlot(writer, message.run);
      writer.bytes(digestBytes(message.digest));
      break;
    case "read":
      encodeSlot(writer, message.run);
      break;
    case "sent":
      writer.bytes(digestBytes(message.digest));
      break;
    case "written":
      break;
    default:
      message satisfies never;
  }
  return message.kind;
}

/**
 * Reads a message of the kv lane; the bytes of a piece are a view of `payload`.
 *
 * @param format Format of the KV on this link; without one, a piece fits no slot.
 * @throws {MessageError} when the message contradicts the format or itself.
 * @throws {PeerError} when there is no message.
 */
export function decodeKv(type: FrameTypeName, payload: Uint8Array, format: SlotFormat | undefined): KvMessage {
  if (type === "refused") return decodeRefused(payload);
  const reader = new PayloadReader(payload, type);
  const call = reader.call();
  switch (type) {
    case "piece": {
      const run = decodeSlot(reader);
      const offset = reader.u64();
      const bytes = reader.bytes(reader.left);
      const slot = format === undefined ? 0 : slotBytes(format);
      if (bytes.length === 0 || offset + bytes.length > slot) {
        throw reader.error(`wanted bytes inside a slot of ${slot}, got ${bytes.length} at ${offset}`);
      }
      return { kind: "piece", call, run, offset, bytes };
    }
    case "commit": {
      const run = decodeSlot(reader);
      return { kind: "commit", call, run, digest: readDigest(reader) };
    }
    case "read": {
      const run = decodeSlot(reader);
      reader.end();
      return { kind: "read", call, run };
    }
    case "sent":
      return { kind: "sent", call, digest: readDigest(reader) };
    case "written":
      reader.end();
      return { kind: "written", call };
    default:
      throw reader.error("it does not belong to the kv lane");
  }
}

function encodeSlot(writer: FrameWriter, run: SlotRun): void {
  if (run.count !== 1) throw new RangeError(`Cannot encode slot: wanted a run of 1, got ${run.count}`);
  encodeSlotRun(writer, run);
}

function decodeSlot(reader: PayloadReader): SlotRun {
  const run = decodeSlotRun(reader);
  if (run.count !== 1) throw reader.error(`wanted a run of one slot, got ${run.count}`, "bad_slot");
  return run;
}

function digestBytes(digest: string): Uint8Array {
  if (!/^[0-9a-f]{64}$/.test(digest)) {
    throw new RangeError(`Cannot encode digest: wanted 64 hexadecimal digits, got ${digest}`);
  }
  return Uint8Array.fromHex(digest);
}

function readDigest(reader: PayloadReader): string {
  const digest = reader.bytes(DIGEST_BYTES).toHex();
  reader.end();
  return digest;
}
