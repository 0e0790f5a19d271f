/**
 * Payload of `refused` on the attention and kv lanes: call (u64), number of the code (u32), detail (UTF-8).
 *
 * @module
 */
import type { FrameWriter } from "./frame_writer.ts";
import type { RefusalCode, Refused } from "./messages.ts";
import { PayloadReader } from "./payload_reader.ts";

/** Refusals by number; the order is the protocol's. */
export const REFUSAL_CODES: readonly RefusalCode[] = [
  "unknown_lease",
  "wrong_debtor",
  "expired",
  "stale_stamp",
  "stale_epoch",
  "bad_slot",
  "bad_shape",
  "not_finite",
  "no_space",
  "over_cap",
  "wrong_format",
  "leaving",
  "bad_digest",
  "unable",
];

/** Longest detail of a refusal, in UTF-16 units; what is longer is cut. */
export const MAX_DETAIL: number = 1024;

/** A detail that is not too long. */
export function cutDetail(detail: string): string {
  return detail.slice(0, MAX_DETAIL).toWellFormed();
}

/** Writes a refusal. */
export function encodeRefused(writer: FrameWriter, message: Refused): void {
  const detail = cutDetail(message.detail);
  writer.begin(12 + 3 * detail.length);
  writer.u64(message.call);
  writer.u32(codeNumber(message.code));
  writer.text(detail);
}

function codeNumber(code: RefusalCode): number {
  const number = REFUSAL_CODES.indexOf(code);
  if (number < 0) throw new RangeError(`Cannot encode refused: wanted a code of the protocol, got ${code}`);
  return number;
}

/** Reads a refusal. @throws {PeerError | MessageError} */
export function decodeRefused(payload: Uint8Array): Refused {
  const reader = new PayloadReader(payload, "refused");
  const call = reader.call();
  const number = reader.u32();
  const code = REFUSAL_CODES[number];
  if (code === undefined) throw reader.error(`wanted a refusal below ${REFUSAL_CODES.length}, got ${number}`);
  return { kind: "refused", call, code, detail: reader.text(3 * MAX_DETAIL) };
}
