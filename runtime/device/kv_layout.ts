/**
 * The layout of a pool: derived from a model, checked before a pool is made.
 *
 * @module
 */
import { MAX_HEAD_DIM } from "../../kernels/attend_partial/spec.ts";
import type { ModelConfig } from "../model/model.ts";
import { type DeviceInfo, type KvLayout, SEGMENT_TOKENS } from "./device.ts";

/** Elements of one unit of a block, see `kv.rs`. */
const UNIT = 8;

/** Layout of the pool of a device that runs a model. */
export function layoutOf(config: ModelConfig, info: Pick<DeviceInfo, "blockTokens" | "kvType">): KvLayout {
  const { layers, heads, kvHeads, headDim } = config;
  return { layers, heads, kvHeads, headDim, blockTokens: info.blockTokens, kvType: info.kvType };
}

/**
 * Checks the sizes of a pool.
 *
 * @throws {RangeError} naming the size that is out of range.
 */
export function checkPool({ layout, blocks }: { readonly layout: KvLayout; readonly blocks: number }): void {
  const { layers, heads, kvHeads, headDim, blockTokens } = layout;
  const whole = { blocks, layers, heads, kvHeads, headDim, blockTokens };
  for (const [name, value] of Object.entries(whole)) {
    if (!Number.isInteger(value) || value < 1) {
      throw new RangeError(`Cannot make a KV pool: ${name} must be a positive integer, got ${value}`);
    }
  }
  if (heads % kvHeads !== 0) {
    throw new RangeError(`Cannot make a KV pool: heads must be a multiple of kvHeads = ${kvHeads}, got ${heads}`);
  }
  if (headDim > MAX_HEAD_DIM) {
    throw new RangeError(`Cannot make a KV pool: headDim must be at most ${MAX_HEAD_DIM}, got ${headDim}`);
  }
  if (SEGMENT_TOKENS % blockTokens !== 0 || blockTokens % UNIT !== 0) {
    throw new RangeError(
      `Cannot make a KV pool: blockTokens must be a multiple of ${UNIT} that divides ${SEGMENT_TOKENS}, got ${blockTokens}`,
    );
  }
}
