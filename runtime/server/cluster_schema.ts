/**
 * Schemas of the cluster routes: the report, the commands and what becomes of them.
 *
 * @module
 */
import { z } from "zod";
import type { ClusterCommand, ClusterReport } from "../cluster/report.ts";
import { BodySchema } from "./body_schema.ts";

/** Body of a command that was carried out or is under way. */
export interface OperatedBody {
  /** What was done, for people. */
  readonly message: string;
}

const performance = z.object({
  batch: z.array(z.number()),
  batchMs: z.array(z.number()),
  attentionMs: z.number(),
  error: z.number(),
  steps: z.number(),
});

const member = z.object({
  id: z.string(),
  role: z.enum(["full", "holder", "manager"]),
  state: z.enum(["alive", "suspect", "leaving"]),
  manager: z.boolean(),
  pid: z.int(),
  url: z.string(),
  clusterUrl: z.string(),
  blocks: z.object({
    total: z.int(),
    free: z.int(),
    own: z.int(),
    lent: z.int(),
    quarantined: z.int(),
    borrowed: z.int(),
    lendable: z.int(),
    filling: z.int().optional(),
  }),
  load: z.object({
    running: z.int(),
    waiting: z.int(),
    maxBatch: z.int(),
    tokensPerSecond: z.number(),
    counters: z.record(z.string(), z.number()),
    performance: performance.optional(),
  }),
  silentMs: z.number(),
});

const sequence = z.object({
  id: z.string(),
  home: z.string(),
  length: z.int(),
  pinned: z.boolean(),
  ranges: z.array(z.object({
    instance: z.string(),
    start: z.int(),
    end: z.int(),
    bytes: z.number(),
    ageMs: z.number(),
  })),
});

const lease = z.object({
  id: z.string(),
  creditor: z.string(),
  debtor: z.string(),
  segments: z.int(),
  expiresMs: z.number(),
});

const move = z.object({
  sequence: z.string(),
  from: z.string(),
  to: z.string(),
  segments: z.int(),
  state: z.enum(["copying", "done", "failed"]),
  predictedGain: z.number().optional(),
  measuredGain: z.number().optional(),
});

/** Schema of {@linkcode ClusterReport}; fields of later versions are skipped. */
export const clusterReport: z.ZodType<ClusterReport> = z.object({
  from: z.string(),
  manager: z.string().optional(),
  epoch: z.int(),
  memoryPolicy: z.string(),
  segmentTokens: z.int(),
  blockTokens: z.int(),
  reachableModelLen: z.int(),
  members: z.array(member),
  sequences: z.array(sequence),
  leases: z.array(lease),
  moves: z.array(move),
});

/** Schema of {@linkcode OperatedBody}. */
export const operatedBody: z.ZodType<OperatedBody> = z.strictObject({ message: z.string() });

const MEMBER = /^[a-z0-9._-]{1,64}$/;
const SEQUENCE = /^[a-z0-9._-]{1,64}\/[\x21-\x7e]{1,128}$/;
const MOST_SEGMENTS = 1_000_000;

const memberName = z.string().regex(MEMBER, "expected a name of 1 to 64 of a-z 0-9 . _ -");
const sequenceName = z.string().regex(SEQUENCE, "expected HOME/HANDLE as GET /cluster shows it");

/** What an operator may ask for, by the last part of its path. */
export type OperationName = ClusterCommand["kind"];

/** Body of each operation. */
export const operationSchemas: {
  readonly [K in OperationName]: BodySchema<OperationFields[K]>;
} = {
  move: new BodySchema(z.strictObject({
    sequence: sequenceName,
    segments: z.int().min(1).max(MOST_SEGMENTS),
    from: memberName.optional(),
    to: memberName,
  })),
  evacuate: new BodySchema(z.strictObject({ member: memberName, undo: z.boolean().optional() })),
  pin: new BodySchema(z.strictObject({ sequence: sequenceName, pinned: z.boolean().optional() })),
  leave: new BodySchema(z.strictObject({ member: memberName })),
};

/** Fields of each operation's body. */
export interface OperationFields {
  /** See `ClusterCommand`. */
  readonly move: {
    readonly sequence: string;
    readonly segments: number;
    readonly from?: string;
    readonly to: string;
  };
  /** See `ClusterCommand`. */
  readonly evacuate: { readonly member: string; readonly undo?: boolean };
  /** See `ClusterCommand`; `pinned` is true by default. */
  readonly pin: { readonly sequence: string; readonly pinned?: boolean };
  /** See `ClusterCommand`. */
  readonly leave: { readonly member: string };
}
