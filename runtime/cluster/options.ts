/**
 * How an instance takes part in a cluster. Everything in it can be copied between threads.
 *
 * @module
 */
import type { LinkTls } from "../../scheduler/links/hello_context.ts";

/** Times of the protocol, ms. Tests shorten them. */
export interface ClusterTimings {
  /** Between heartbeats. @default {500} */
  readonly heartbeatMs: number;
  /** A peer that was not heard of for so long is asked; twice that and it is dead. @default {2000} */
  readonly suspectMs: number;
  /** Life of a lease. @default {10000} */
  readonly leaseMs: number;
  /** Between renewals. @default {3000} */
  readonly renewMs: number;
  /** Least time an answer to an attention request may take before it is asked again, once. @default {1000} */
  readonly partialMs: number;
  /** Time within which called back memory is given back. @default {2000} */
  readonly recallMs: number;
  /** Between looks of the memory policy at the cluster. @default {1000} */
  readonly planMs: number;
  /** Least time that an answer to any other call may take. @default {2000} */
  readonly callMs: number;
  /** Time after its start for which a member lends gently; 0 lets it lend all at once. @default {10000} */
  readonly newcomerMs: number;
}

/** How to take part in a cluster. */
export interface ClusterOptions {
  /** Name, unique in the cluster. @default {a random one} */
  readonly name?: string;
  /** `full` or `holder`. @default {"full"} */
  readonly role?: "full" | "holder";
  /**
   * Cluster ports of members to join, `http://HOST:PORT`, `https:` with {@linkcode tls}; without any this member starts a
   * cluster and carries its gManager.
   */
  readonly join?: readonly string[];
  /** Address of the cluster port. @default {"127.0.0.1"} */
  readonly host?: string;
  /** Port; 0 takes any free one. @default {0} */
  readonly port?: number;
  /** Where others reach the cluster port, `http://HOST:PORT`, `https:` with {@linkcode tls}. @default {host and port} */
  readonly advertise?: string;
  /** Shared key, at least 32 bytes; without it and {@linkcode tls} only loopback addresses are allowed. */
  readonly key?: Uint8Array;
  /** Certificates; with them members link over TLS, and each side must show one of the same authority. */
  readonly tls?: LinkTls;
  /** Where the public API is reached, for people and routers. @default {""} */
  readonly publicUrl?: string;
  /** Memory policy: `builtin:NAME`, a path or a URL. @default {"builtin:infinite-llm"} */
  readonly memoryPolicy?: string;
  /** Its options. */
  readonly memoryPolicyOptions?: unknown;
  /** Most of the own blocks that may be lent, 0 to 1. @default {all but a reserve that follows recent own use} */
  readonly lendShare?: number;
  /** Multiply-accumulates between two looks at the links while a step runs. @default {see Member} */
  readonly sliceWork?: number;
  /** Times that differ from the defaults. */
  readonly timings?: Partial<ClusterTimings>;
}

/** Times when nothing is asked for. */
export const CLUSTER_TIMINGS: ClusterTimings = {
  heartbeatMs: 500,
  suspectMs: 2000,
  leaseMs: 10_000,
  renewMs: 3000,
  partialMs: 1000,
  recallMs: 2000,
  planMs: 1000,
  callMs: 2000,
  newcomerMs: 10_000,
};
