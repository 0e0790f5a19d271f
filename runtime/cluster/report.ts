/**
 * What an operator sees of a cluster and what an operator may ask of it: the body of `GET /cluster` and the commands
 * behind `POST /cluster/...`. All of it is plain JSON.
 *
 * @module
 */
import type { BlockReport, LoadReport, MoveReport } from "../../scheduler/protocol/messages.ts";
import type { MemberRole } from "../../scheduler/protocol/member.ts";

/** A member. */
export interface ReportedMember {
  /** Name. */
  readonly id: string;
  /** What it does. */
  readonly role: MemberRole;
  /** Whether it answers. */
  readonly state: "alive" | "suspect" | "leaving";
  /** Whether it carries the gManager. */
  readonly manager: boolean;
  /** Process id. */
  readonly pid: number;
  /** Where its public API is reached; empty without one. */
  readonly url: string;
  /** Where its cluster port is reached. */
  readonly clusterUrl: string;
  /** Its memory, in blocks. */
  readonly blocks: BlockReport;
  /** Its load. */
  readonly load: LoadReport;
  /** Milliseconds since its last heartbeat. */
  readonly silentMs: number;
}

/** A run of tokens of a sequence on one instance. */
export interface ReportedRange {
  /** Member that holds them. */
  readonly instance: string;
  /** Position of the first token. */
  readonly start: number;
  /** One past the position of the last token. */
  readonly end: number;
  /** Bytes of their keys and values. */
  readonly bytes: number;
  /** Milliseconds since they came there. */
  readonly ageMs: number;
}

/** A sequence. */
export interface ReportedSequence {
  /** `HOME/HANDLE`. */
  readonly id: string;
  /** Its home. */
  readonly home: string;
  /** Tokens known. */
  readonly length: number;
  /** Whether an operator pinned it. */
  readonly pinned: boolean;
  /** Where its tokens lie, ascending. */
  readonly ranges: readonly ReportedRange[];
}

/** A lease. */
export interface ReportedLease {
  /** `CREDITOR/LEASE`. */
  readonly id: string;
  /** Who lends. */
  readonly creditor: string;
  /** Who borrows. */
  readonly debtor: string;
  /** Segments. */
  readonly segments: number;
  /** Milliseconds to its expiry, unless renewed. */
  readonly expiresMs: number;
}

/** A cluster as its gManager knows it, or one member alone while none is reached. */
export interface ClusterReport {
  /** Member that wrote the report. */
  readonly from: string;
  /** gManager's name; absent while none is reached, and then only `from` is listed. */
  readonly manager?: string;
  /** gManager's epoch. */
  readonly epoch: number;
  /** Memory policy. */
  readonly memoryPolicy: string;
  /** Tokens of one segment. */
  readonly segmentTokens: number;
  /** Tokens of one block. */
  readonly blockTokens: number;
  /** Longest prompt plus output that the writer could run now, tokens. */
  readonly reachableModelLen: number;
  /** Members. */
  readonly members: readonly ReportedMember[];
  /** Sequences with KV. */
  readonly sequences: readonly ReportedSequence[];
  /** Leases. */
  readonly leases: readonly ReportedLease[];
  /** Moves under way and lately ended. */
  readonly moves: readonly MoveReport[];
}

/** What an operator asks for. */
export type ClusterCommand =
  /** Moves `segments` segments of a sequence that lie on `from` (its home by default) to `to`. */
  | {
    readonly kind: "move";
    readonly sequence: string;
    readonly segments: number;
    readonly from?: string;
    readonly to: string;
  }
  /** Takes everything that others have there off a member, and lends nothing to it or from it until `undo`. */
  | { readonly kind: "evacuate"; readonly member: string; readonly undo?: boolean }
  /** Keeps a sequence where it is, or lets it go. */
  | { readonly kind: "pin"; readonly sequence: string; readonly pinned: boolean }
  /** Lets a member leave: it gives back, hands over and ends. */
  | { readonly kind: "leave"; readonly member: string };

/** What became of a command. */
export interface CommandResult {
  /** Whether it was carried out or is under way. */
  readonly ok: boolean;
  /** For people: what was done, or wanted and actual. */
  readonly message: string;
  /** HTTP status that fits a refusal: 404 for unknown names, 409 for what cannot be done now, 503 without a gManager. */
  readonly status?: 400 | 404 | 409 | 503;
}

/** The cluster side of an engine. */
export interface ClusterControl {
  /** The cluster as known now. */
  report(): Promise<ClusterReport>;
  /** Carries a command out. */
  operate(command: ClusterCommand): Promise<CommandResult>;
  /** Gives back what is borrowed, hands over what is held and running, and resolves when nothing is left. */
  leave(timeoutMs: number): Promise<void>;
  /** Resolves once an operator has asked this member to leave: whoever holds the process ends it as a signal would. */
  readonly leaveAsked?: Promise<void>;
}
