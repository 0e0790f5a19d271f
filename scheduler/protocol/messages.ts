/**
 * Everything members say to each other. A link carries three lanes, so that attention never waits behind anything else:
 *
 * | lane      | messages                       | answer                                      |
 * |-----------|--------------------------------|---------------------------------------------|
 * | attention | `attend`                       | `partials` or `refused`                     |
 * | control   | every {@linkcode ControlMessage} | where there is one, it echoes `call`        |
 * | kv        | `write`, `read`                | `written`, `piece` or `refused`             |
 *
 * A `call` is unique among the calls of its sender's incarnation and never reused. Messages may be lost with the link,
 * and requests may come twice: whoever answers does the same thing twice or says so.
 *
 * @module
 */
import type { KvFormat, MemberCard, MemberIdentity } from "./member.ts";

/** Version of the protocol. */
export const PROTOCOL_VERSION = 1;

/** One message on its way. Sender and receiver are those of the link; the receiver drops what is not for its incarnation. */
export interface Envelope {
  /** Who sends. */
  readonly from: MemberIdentity;
  /** For whom. */
  readonly to: MemberIdentity;
  /** Highest epoch of a gManager that the sender has seen. */
  readonly epoch: number;
  /** The message. */
  readonly message: Message;
}

/** Any message. */
export type Message = AttentionMessage | ControlMessage | KvMessage;

/** Lane of a link. */
export type Lane = "attention" | "control" | "kv";

/** Why a request was refused. The first word of every refusal that a peer or an operator sees. */
export type RefusalCode =
  /** The lease is unknown here: never granted, released, revoked, or of another incarnation. */
  | "unknown_lease"
  /** The lease is somebody else's. */
  | "wrong_debtor"
  /** The lease ran out on the creditor's clock. */
  | "expired"
  /** The stamp is not the lease's. */
  | "stale_stamp"
  /** The epoch is older than one seen. */
  | "stale_epoch"
  /** A slot is outside the lease, freed, or not filled yet. */
  | "bad_slot"
  /** The message contradicts the format of the KV: counts, lengths, layer. */
  | "bad_shape"
  /** A number that must be finite is not. */
  | "not_finite"
  /** Not enough free memory. */
  | "no_space"
  /** The cap on lent memory is reached. */
  | "over_cap"
  /** The format of the KV is another. */
  | "wrong_format"
  /** The member is leaving. */
  | "leaving"
  /** The digest of what arrived is not the one stated. */
  | "bad_digest"
  /** The member cannot do this at all or not now; `detail` says why. */
  | "unable";

/** An answer that says no. */
export interface Refused {
  /** Kind. */
  readonly kind: "refused";
  /** The call it answers. */
  readonly call: number;
  /** Why. */
  readonly code: RefusalCode;
  /** For people: what was wanted and what came. */
  readonly detail: string;
}

/**
 * Consecutive slots of one lease; a slot holds one segment. The stamp is drawn when the lease is granted and never again
 * by that creditor, so a reference to memory that has been given to somebody else never matches.
 */
export interface SlotRun {
  /** Lease, unique in the creditor's incarnation. */
  readonly lease: number;
  /** Stamp of the lease. */
  readonly stamp: number;
  /** First slot. */
  readonly from: number;
  /** Slots. */
  readonly count: number;
}

/** Queries of one sequence for consecutive segments at one holder. */
export interface AttendItem {
  /** First segment (absolute) that the runs hold; the following runs and slots hold the following segments. */
  readonly segment: number;
  /** Where they lie. */
  readonly runs: readonly SlotRun[];
  /** Position of the first query; every segment lies below it. */
  readonly position: number;
  /** Query tokens. */
  readonly tokens: number;
  /** [tokens, heads * headDim], rotated, not scaled. */
  readonly queries: Float32Array;
}

/** Asks for the partials of one layer, for a whole batch. */
export interface AttendRequest {
  /** Kind. */
  readonly kind: "attend";
  /** Call. A repeated call is answered anew: partials are idempotent. */
  readonly call: number;
  /** Layer. */
  readonly layer: number;
  /** One for each sequence with segments there. */
  readonly items: readonly AttendItem[];
}

/** Partial of one node of the merge tree. */
export interface WirePartial {
  /** First segment. */
  readonly first: number;
  /** Segments. */
  readonly segments: number;
  /** [tokens, heads * headDim]. */
  readonly o: Float32Array;
  /** [tokens, heads]; never NaN or +Infinity. */
  readonly lse: Float32Array;
}

/** Answer to {@linkcode AttendRequest}. */
export interface AttendReply {
  /** Kind. */
  readonly kind: "partials";
  /** The call it answers. */
  readonly call: number;
  /** Layer. */
  readonly layer: number;
  /** For each item of the request, in order: its nodes, in order. */
  readonly items: readonly (readonly WirePartial[])[];
}

/** What the attention lane carries. */
export type AttentionMessage = AttendRequest | AttendReply | Refused;

/** What a member tells the gManager about its memory; all in blocks. total = free + own + lent + quarantined. */
export interface BlockReport {
  /** Blocks in the pool. */
  readonly total: number;
  /** Neither owned nor lent; evictable prefix blocks are free. */
  readonly free: number;
  /** In block tables of live sequences. */
  readonly own: number;
  /** Granted to others. */
  readonly lent: number;
  /** Lent blocks given back that work in flight might still touch. */
  readonly quarantined: number;
  /** Held at others for own sequences. */
  readonly borrowed: number;
  /** Free blocks that it would lend now. */
  readonly lendable: number;
  /** Free blocks that it will lend when it may go on: a newcomer pauses between two grants. @default {0} */
  readonly filling?: number;
}

/** An entry of the request placement map: how much of one sequence lies on one instance. */
export interface PlacementEntry {
  /** Sequence: `HOME/HANDLE`. */
  readonly sequence: string;
  /** Member that holds the blocks; the home's own for local ones. */
  readonly member: string;
  /** Blocks; 0 takes the entry off the map. */
  readonly blocks: number;
  /** Whether the member is the home. */
  readonly local: boolean;
  /** Tokens of the whole sequence. */
  readonly length: number;
  /** Segments held there, as runs [from, to). */
  readonly ranges: readonly { readonly from: number; readonly to: number; readonly sinceMs: number }[];
  /** Whether an operator pinned the sequence where it is. */
  readonly pinned: boolean;
}

/** How busy an instance is. */
export interface LoadReport {
  /** Sequences running. */
  readonly running: number;
  /** Sequences waiting. */
  readonly waiting: number;
  /** Most sequences it runs at once. */
  readonly maxBatch: number;
  /** Tokens a second, generated, lately. */
  readonly tokensPerSecond: number;
  /** Counters of recoveries, refusals and moves, by name; they only rise. */
  readonly counters: Readonly<Record<string, number>>;
  /** Fit of the performance model, see `scheduler/performance`. */
  readonly performance?: PerformanceReport;
}

/** Times of a transformer step as fitted on one instance: W(b)/f(b) and S/g(S). */
export interface PerformanceReport {
  /** Batch sizes at which the time of everything but attention was measured. */
  readonly batch: readonly number[];
  /** That time, ms a step. */
  readonly batchMs: readonly number[];
  /** Attention, ms for each thousand tokens of context. */
  readonly attentionMs: number;
  /** Mean absolute relative error of the fit over its latest steps. */
  readonly error: number;
  /** Steps it stands on. */
  readonly steps: number;
}

/** A move as an operator sees it. */
export interface MoveReport {
  /** Sequence. */
  readonly sequence: string;
  /** From which member. */
  readonly from: string;
  /** To which member. */
  readonly to: string;
  /** Segments. */
  readonly segments: number;
  /** State. */
  readonly state: "copying" | "done" | "failed";
  /** Expected gain, tokens a second over the pair; absent when nobody predicted it. */
  readonly predictedGain?: number;
  /** Gain seen afterwards. */
  readonly measuredGain?: number;
}

/** A lease as its creditor sees it. */
export interface LeaseReport {
  /** Lease. */
  readonly lease: number;
  /** Who borrows. */
  readonly debtor: string;
  /** Live slots. */
  readonly segments: number;
  /** Milliseconds to its expiry, unless renewed. */
  readonly expiresMs: number;
}

/** Periodic report to the gManager: only what changed since `base`, or everything. */
export interface Heartbeat {
  /** Kind. */
  readonly kind: "heartbeat";
  /** Rises by one with each heartbeat of this incarnation. */
  readonly version: number;
  /** The version this one builds on; absent when it is complete. */
  readonly base?: number;
  /** The sender. */
  readonly card: MemberCard;
  /** Its memory. */
  readonly blocks: BlockReport;
  /** Its load. */
  readonly load: LoadReport;
  /** Entries that changed. */
  readonly entries: readonly PlacementEntry[];
  /** Leases granted to others; all of them. */
  readonly leases: readonly LeaseReport[];
  /** Moves under way and lately ended. */
  readonly moves: readonly MoveReport[];
  /** Whether it is leaving: lend nothing to it, route nothing to it. */
  readonly leaving: boolean;
}

/** What the gManager tells everybody about a member. */
export interface MemberStatus {
  /** Who and where. */
  readonly card: MemberCard;
  /** Its memory. */
  readonly blocks: BlockReport;
  /** Its load. */
  readonly load: LoadReport;
  /** Milliseconds since its last heartbeat. */
  readonly silentMs: number;
  /** `alive`, `suspect` (heartbeats missed) or `leaving`. */
  readonly state: "alive" | "suspect" | "leaving";
}

/** Answer to a heartbeat: the directory. */
export interface HeartbeatAck {
  /** Kind. */
  readonly kind: "heartbeat-ack";
  /** Version it answers. */
  readonly version: number;
  /** Whether the next heartbeat must be complete: there was a gap. */
  readonly wantFull: boolean;
  /** Members as known now, the receiver included. */
  readonly members: readonly MemberStatus[];
}

/** Messages of the control lane. */
export type ControlMessage =
  | Heartbeat
  | HeartbeatAck
  /** gManager to home: move `segments` segments of a sequence to `to`. */
  | {
    readonly kind: "move-kvcache";
    readonly call: number;
    readonly sequence: string;
    readonly segments: number;
    /** Where they lie now; the home itself or one of its creditors. */
    readonly from: string;
    readonly to: string;
    readonly predictedGain?: number;
  }
  /** Home to gManager: what became of an order. */
  | { readonly kind: "move-result"; readonly call: number; readonly moved: number; readonly problem?: string }
  /** Debtor to creditor: reserve `segments` slots. Answer: `granted` or `refused`. */
  | {
    readonly kind: "try-move-kvcache";
    readonly call: number;
    readonly sequence: string;
    readonly segments: number;
    readonly format: KvFormat;
  }
  | { readonly kind: "granted"; readonly call: number; readonly run: SlotRun; readonly ttlMs: number }
  /** Debtor to creditor: keep these leases. Answer: `renewed`, with those that are not alive any more. */
  | { readonly kind: "renew"; readonly call: number; readonly leases: readonly number[] }
  | { readonly kind: "renewed"; readonly call: number; readonly dead: readonly number[]; readonly ttlMs: number }
  /** Debtor to creditor: these slots are not needed any more. Answer: `released`. Unknown ones count as released. */
  | { readonly kind: "release"; readonly call: number; readonly runs: readonly SlotRun[] }
  | { readonly kind: "released"; readonly call: number }
  /** Creditor to debtor: give `segments` segments back within `withinMs`; leases are listed oldest first. No answer but releases. */
  | { readonly kind: "recall"; readonly call: number; readonly segments: number; readonly withinMs: number }
  /** Creditor to debtor: these slots are gone. */
  | { readonly kind: "revoked"; readonly leases: readonly number[] }
  /** Front to home: run a request. Answer: `accepted` or `rejected`, then `events`. */
  | { readonly kind: "submit"; readonly call: number; readonly request: WireRequest }
  | { readonly kind: "accepted"; readonly call: number }
  | {
    readonly kind: "rejected";
    readonly call: number;
    readonly message: string;
    readonly code: string;
    readonly status: number;
  }
  /** Home to front: events of a submitted request, JSON, numbered from 0 so that a gap or a repetition shows. */
  | { readonly kind: "events"; readonly call: number; readonly first: number; readonly events: readonly string[] }
  /** Front to home: the client is gone. */
  | { readonly kind: "cancel"; readonly call: number }
  /** Home to front: run it elsewhere, the home is leaving. */
  | { readonly kind: "handed-back"; readonly call: number }
  /** Anybody to anybody: answer at once. */
  | { readonly kind: "ping"; readonly call: number }
  | { readonly kind: "pong"; readonly call: number }
  /** Anybody to the gManager: an operator's wish (see `runtime/cluster/report.ts`), JSON. Answer: `operated`. */
  | { readonly kind: "operate"; readonly call: number; readonly command: string }
  | { readonly kind: "operated"; readonly call: number; readonly result: string }
  /** Says goodbye: the sender holds nothing and is gone. */
  | { readonly kind: "bye" }
  | Refused;

/** An engine request as it travels: JSON of `EngineRequest` with resumed tokens. */
export interface WireRequest {
  /** JSON. */
  readonly json: string;
}

/** Messages of the kv lane. Bytes travel in pieces; each names its place, so repeating one is harmless. */
export type KvMessage =
  /** Bytes of one slot, from `offset` of its `segmentTokens / blockTokens` blocks laid end to end. No answer. */
  | {
    readonly kind: "piece";
    readonly call: number;
    readonly run: SlotRun;
    readonly offset: number;
    readonly bytes: Uint8Array;
  }
  /** All pieces of one slot were sent: check them. Answer: `written` or `refused`. `digest` is SHA-256 of the slot's bytes, hexadecimal. */
  | { readonly kind: "commit"; readonly call: number; readonly run: SlotRun; readonly digest: string }
  | { readonly kind: "written"; readonly call: number }
  /** Asks for the bytes of one slot. Answer: `piece`s with the same call, then `sent`, or `refused`. */
  | { readonly kind: "read"; readonly call: number; readonly run: SlotRun }
  | { readonly kind: "sent"; readonly call: number; readonly digest: string }
  | Refused;
