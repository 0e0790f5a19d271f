/**
 * What a member's card must look like on the wire.
 *
 * @module
 */
import type { KvFormat, MemberCard } from "./member.ts";
import { integer, oneOf, optional, record, type Schema, text } from "./schema.ts";

/** Name of a member. */
export const nameSchema: Schema<string> = text(64, /^[a-z0-9._-]+$/);

/** Format of KV. */
export const formatSchema: Schema<KvFormat> = record({
  modelDigest: text(256),
  kvType: oneOf("f32", "f16", "bf16", "fp8"),
  layout: text(256),
  layers: integer(1, 65536),
  heads: integer(1, 65536),
  kvHeads: integer(1, 65536),
  headDim: integer(1, 65536),
  blockTokens: integer(1, 65536),
  segmentTokens: integer(1, 65536),
  blockBytes: integer(1, 2 ** 40),
});

/** Card of a member. */
export const cardSchema: Schema<MemberCard> = record({
  name: nameSchema,
  incarnation: text(32, /^[0-9a-f]{32}$/),
  role: oneOf("full", "holder", "manager"),
  clusterUrl: text(512),
  publicUrl: text(512),
  pid: integer(),
  protocol: integer(0, 2 ** 32),
  pluginApi: integer(0, 2 ** 32),
  format: optional(formatSchema),
  managerUrl: optional(text(512)),
  kernelDigest: text(256),
});
