/**
 * Sizes of holders.
 *
 * @module
 */
import { kvTokenBytes } from "../../runtime/device/kv_size.ts";
import { SEGMENT_TOKENS } from "../../runtime/device/device.ts";
import type { OpenModel } from "../../runtime/model/model.ts";

/** `--kv-memory` of a holder that lends so many tokens of f16 KV, whole segments. */
export function holderMemory({ config }: OpenModel, tokens: number): string {
  const { layers, kvHeads, headDim } = config;
  const segments = Math.ceil(tokens / SEGMENT_TOKENS) + 1;
  return `${Math.ceil(segments * SEGMENT_TOKENS * kvTokenBytes({ layers, kvHeads, headDim }, "f16") / 2 ** 20)}MiB`;
}
