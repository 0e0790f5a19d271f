/**
 * A run of slots in a payload: lease (u64), stamp (u64), first slot (u32), slots (u32).
 *
 * @module
 */
import type { FrameWriter } from "./frame_writer.ts";
import type { SlotRun } from "./messages.ts";
import type { PayloadReader } from "./payload_reader.ts";

/** Bytes of a run. */
export const SLOT_RUN_BYTES = 24;

/** Writes a run. */
export function encodeSlotRun(writer: FrameWriter, run: SlotRun): void {
  writer.u64(run.lease);
  writer.u64(run.stamp);
  writer.u32(run.from);
  writer.u32(run.count);
}

/** Reads a run of at least one slot. */
export function decodeSlotRun(reader: PayloadReader): SlotRun {
  const lease = reader.u64();
  const stamp = reader.u64();
  const from = reader.u32();
  const count = reader.u32();
  if (count < 1 || from + count > 2 ** 32) throw reader.error(`wanted slots below 2^32, got ${count} from ${from}`);
  return { lease, stamp, from, count };
}
