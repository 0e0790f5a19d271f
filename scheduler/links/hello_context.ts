/**
 * What both sides of a hello over HTTP/2 share.
 *
 * @module
 */
import type { MemberCard } from "../protocol/member.ts";
import type { LinkLimits, SetTimer } from "./link_limits.ts";

/** Certificates of a member, PEM: whoever links must have one of the same authority. */
export interface LinkTls {
  /** Own certificate. */
  readonly cert: string;
  /** Its key. */
  readonly key: string;
  /** The authority that signed every member's. */
  readonly ca: string;
}

/** What both sides of a hello need. */
export interface HelloContext {
  /** Own card as it is now, with the url under which this member is reached. */
  readonly card: () => MemberCard;
  /** The cluster's key. */
  readonly key: Uint8Array | undefined;
  /** Certificates. */
  readonly tls: LinkTls | undefined;
  /** Highest epoch seen. */
  readonly epoch: () => number;
  /** Bounds. */
  readonly limits: LinkLimits;
  /** Timers. */
  readonly setTimer: SetTimer;
  /** Fresh random bytes. */
  readonly randomBytes: (count: number) => Uint8Array;
  /** Settings of every HTTP/2 session. */
  readonly http2: { readonly settings: { readonly initialWindowSize: number; readonly maxConcurrentStreams: number } };
  /** Bytes that may be under way on the connection of attention and control. */
  readonly windowBytes: number;
  /** The same on the connection of kv. */
  readonly kvWindowBytes: number;
}
