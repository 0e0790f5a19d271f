/**
 * Turns the sizes users state (memory or tokens) into blocks of a KV pool.
 *
 * @module
 */
import { KV_ELEMENT_BYTES, type KvType } from "../../kernels/dtype.ts";
import type { ModelConfig } from "../model/model.ts";
import type { KvLayout } from "./device.ts";

/** KV memory of a pool when nothing is asked for, bytes. */
export const DEFAULT_KV_BYTES: number = 512 * 2 ** 20;

/** Size of a KV pool as users state it; at most one of the first two. */
export interface KvSize {
  /** Bytes of the pool. */
  readonly kvBytes?: number;
  /** Tokens of the pool. */
  readonly kvTokens?: number;
  /** Element type. */
  readonly kvType: KvType;
  /** Tokens of one block. */
  readonly blockTokens: number;
  /** Bytes of one block. @default {those of its values and of padding to units of 8} */
  readonly blockBytes?: number;
}

/** Sizes of a model or a layout that the bytes of a token depend on. */
export type KvShape = Pick<KvLayout, "layers" | "kvHeads" | "headDim">;

/** Bytes that the keys and values of one token take over all layers; values are stored in units of 8. */
export function kvTokenBytes({ layers, kvHeads, headDim }: KvShape, kvType: KvType): number {
  const valueWidth = Math.ceil(headDim / 8) * 8;
  return layers * kvHeads * (headDim + valueWidth) * KV_ELEMENT_BYTES[kvType];
}

/**
 * Blocks of a pool of `kvBytes` bytes.
 *
 * @throws {RangeError} when that holds no block.
 */
export function kvStoreBlocks(layout: KvLayout, kvBytes: number): number {
  const blockBytes = kvTokenBytes(layout, layout.kvType) * layout.blockTokens;
  const blocks = Math.floor(kvBytes / blockBytes);
  if (!(blocks >= 1)) {
    throw new RangeError(
      `Cannot size the KV pool: one block of ${layout.blockTokens} tokens takes ${blockBytes} bytes, got ${kvBytes} bytes`,
    );
  }
  return blocks;
}

/**
 * Blocks of a pool of the stated size. Without a size, the pool takes {@linkcode DEFAULT_KV_BYTES}, or less when eight
 * sequences of the model's full context need less.
 *
 * @throws {RangeError} when both sizes are given or the size holds no block.
 */
export function kvBlocks(config: ModelConfig, size: KvSize): number {
  const { blockBytes = kvTokenBytes(config, size.kvType) * size.blockTokens } = size;
  if (size.kvBytes !== undefined && size.kvTokens !== undefined) {
    throw new RangeError("Cannot size the KV pool: wanted its memory or its tokens, got both");
  }
  const blocks = size.kvTokens !== undefined
    ? Math.ceil(size.kvTokens / size.blockTokens)
    : size.kvBytes !== undefined
    ? Math.floor(size.kvBytes / blockBytes)
    : Math.min(Math.floor(DEFAULT_KV_BYTES / blockBytes), Math.ceil(8 * config.contextLength / size.blockTokens));
  if (!(blocks >= 1)) {
    throw new RangeError(
      `Cannot size the KV pool: one block of ${size.blockTokens} tokens takes ${blockBytes} bytes, got ` +
        `${size.kvTokens !== undefined ? `${size.kvTokens} tokens` : `${size.kvBytes ?? DEFAULT_KV_BYTES} bytes`}`,
    );
  }
  return blocks;
}
