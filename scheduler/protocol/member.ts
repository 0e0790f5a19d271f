/**
 * Who the members of a cluster are.
 *
 * @module
 */

/** One run of one member. */
export interface MemberIdentity {
  /** Name, unique in the cluster: 1 to 64 of `a-z 0-9 . _ -`. */
  readonly name: string;
  /** 32 hexadecimal digits, drawn anew at each start, so that a restarted member is somebody else. */
  readonly incarnation: string;
}

/** What a member does: `full` runs requests and lends, `holder` only lends, `manager` is a gManager alone. */
export type MemberRole = "full" | "holder" | "manager";

/** Shape of the KV blocks a cluster exchanges. Members lend to each other only when all of it is equal. */
export interface KvFormat {
  /** Digest of the model whose keys and values these are. */
  readonly modelDigest: string;
  /** Element type: `f32`, `f16`, `bf16` or `fp8`. Numbers of `fp8` travel as `bf16`, in which each is exact. */
  readonly kvType: "f32" | "f16" | "bf16" | "fp8";
  /** Everything else that shapes the stored bytes: device kind, activation type, layout version. */
  readonly layout: string;
  /** Layers. */
  readonly layers: number;
  /** Query heads. */
  readonly heads: number;
  /** Key and value heads. */
  readonly kvHeads: number;
  /** Width of a head. */
  readonly headDim: number;
  /** Tokens of one block. */
  readonly blockTokens: number;
  /** Tokens of one segment, the unit of lending. */
  readonly segmentTokens: number;
  /** Bytes of one block over all layers. */
  readonly blockBytes: number;
}

/** What a member says about itself when a link opens; refused by name where it does not fit. */
export interface MemberCard extends MemberIdentity {
  /** What it does. */
  readonly role: MemberRole;
  /** Where its cluster port is reached, `http://HOST:PORT`, `https:` over TLS. */
  readonly clusterUrl: string;
  /** Where its public API is reached; empty without one. */
  readonly publicUrl: string;
  /** Process id, for people. */
  readonly pid: number;
  /** Protocol version it speaks, see `PROTOCOL_VERSION`. */
  readonly protocol: number;
  /** Version of the plugin interface. */
  readonly pluginApi: number;
  /** Format of its KV; a holder has none before its first lease. */
  readonly format?: KvFormat;
  /** Cluster port of the gManager that it reports to, once there is one. */
  readonly managerUrl?: string;
  /** Hash of a known-answer run of its attention kernel: where it differs, bits may. */
  readonly kernelDigest: string;
}
