/**
 * How a member's network over HTTP/2 is opened, and what it tells besides the {@linkcode Network}.
 *
 * @module
 */
import type { MemberCard } from "../protocol/member.ts";
import { checkKey } from "../protocol/session_keys.ts";
import type { LinkTls } from "./hello_context.ts";
import type { Network } from "./link.ts";
import type { LinkLimits, SetTimer } from "./link_limits.ts";

/** How a member's network is opened. */
export interface Http2NetworkOptions {
  /** The member, as it is now. Its `clusterUrl` is replaced by the network's. */
  readonly card: MemberCard | (() => MemberCard);
  /** Address to listen on. Wider than loopback only with a key or certificates. */
  readonly host: string;
  /** Port to listen on; 0 takes a free one. */
  readonly port: number;
  /** Url under which others reach this member. @default what it listens on */
  readonly advertise?: string;
  /** The cluster's key, at least 32 bytes: whoever links must know it. */
  readonly key?: Uint8Array;
  /** Certificates: whoever links must have one of the same authority. */
  readonly tls?: LinkTls;
  /** Highest epoch of a gManager that the member has seen. @default () => 0 */
  readonly epoch?: () => number;
  /** Bounds. */
  readonly limits?: Partial<LinkLimits>;
  /** Timers. @default setTimeout */
  readonly setTimer?: SetTimer;
}

/** What happened to links so far; the numbers only rise. */
export interface LinkCounters {
  /** Links that opened. */
  opened: number;
  /** Links that were closed by either side or broke. */
  closed: number;
  /** Hellos and links that ended because the peer broke the protocol. */
  protocol: number;
  /** Hellos and links that ended because a proof or tag did not fit. */
  auth: number;
  /** Hellos that were refused by name. */
  refused: number;
  /** Dials that reached nobody. */
  unreachable: number;
  /** Connections and hellos that were turned away because there were too many. */
  turnedAway: number;
}

/** A network over HTTP/2. Disposing it closes its links and tells its listener nothing more. */
export interface Http2Network extends Network {
  /** What happened so far. */
  readonly counters: Readonly<LinkCounters>;
  /** Resolves once the network was disposed and every connection is gone. */
  readonly finished: Promise<void>;
}

/**
 * Checks where a network would listen.
 *
 * @throws {RangeError} when the address is wider than loopback and there is neither key nor certificates, when the key
 * is shorter than 32 bytes, or when an address that cannot be dialled would be advertised.
 */
export function checkListener(options: Http2NetworkOptions): void {
  const { host, port, key, tls } = options;
  if (key !== undefined) checkKey(key);
  if (key === undefined && tls === undefined && !isLoopback(host)) {
    throw new RangeError(
      `Cannot listen on ${host}:${port}: wanted a cluster key or certificates beyond loopback, got neither`,
    );
  }
  if (/^(0\.0\.0\.0|::|\[::\])$/.test(host) && options.advertise === undefined) {
    throw new RangeError(`Cannot listen on ${host}:${port}: wanted a url to advertise, got none`);
  }
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(host);
}
