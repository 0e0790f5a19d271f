/**
 * Whether two members may exchange KV blocks.
 *
 * @module
 */
import type { KvFormat } from "../protocol/member.ts";

/** Every field, so that a format with a further one does not compile before it is compared. */
const FIELDS: Readonly<Record<keyof KvFormat, true>> = {
  modelDigest: true,
  kvType: true,
  layout: true,
  layers: true,
  heads: true,
  kvHeads: true,
  headDim: true,
  blockTokens: true,
  segmentTokens: true,
  blockBytes: true,
};

/** Says field by field how `got` differs from `wanted`; empty when they are equal. */
export function formatDifferences(wanted: KvFormat, got: KvFormat): string {
  return (Object.keys(FIELDS) as (keyof KvFormat)[])
    .filter((field) => wanted[field] !== got[field])
    .map((field) => `${field}: wanted ${wanted[field]}, got ${got[field]}`)
    .join("; ");
}
