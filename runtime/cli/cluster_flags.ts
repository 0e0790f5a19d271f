/**
 * The flags of clusters: of members, of whole pools and of the commands that steer them.
 *
 * @module
 */
import type { CommandName } from "./commands.ts";
import type { FlagSpec } from "./flags.ts";

/** Commands that start members. */
const MEMBER_COMMANDS = ["serve", "cluster", "gmanager"] as const satisfies readonly CommandName[];

/** Commands that talk to a running member. */
export const OPERATOR_COMMANDS = [
  "cluster",
  "cluster status",
  "ps",
  "move",
  "evacuate",
  "pin",
  "leave",
] as const satisfies readonly CommandName[];

/** The table. */
export const CLUSTER_FLAGS = {
  join: {
    kind: "list",
    value: "URL",
    default: [],
    otherwise: "none",
    help: "Cluster port of a member to join, http://HOST:PORT, https with TLS; may be given several times",
    commands: ["serve"],
  },
  clusterListen: {
    kind: "text",
    value: "HOST:PORT",
    otherwise: "127.0.0.1:0 with --join, else no cluster",
    help: "Address of the cluster port; without --join it starts a cluster",
    commands: ["serve", "cluster"],
  },
  listen: {
    kind: "text",
    value: "HOST:PORT",
    help: "Address of the cluster port; one that other machines reach needs --cluster-key-file or --cluster-tls-cert",
    commands: ["gmanager"],
  },
  advertise: {
    kind: "text",
    value: "URL",
    otherwise: "the address of the cluster port",
    help: "Where other members reach the cluster port, http://HOST:PORT, https with TLS",
    commands: MEMBER_COMMANDS,
  },
  clusterKeyFile: {
    kind: "path",
    value: "FILE",
    help: "File with the key that all members share, at least 32 bytes; it or TLS is needed beyond this machine",
    commands: MEMBER_COMMANDS,
  },
  clusterTlsCert: {
    kind: "path",
    value: "FILE",
    help: "Certificate chain (PEM) of this member; with it members link over TLS and each side shows its own",
    commands: MEMBER_COMMANDS,
  },
  clusterTlsKey: {
    kind: "path",
    value: "FILE",
    help: "Private key (PEM) of that certificate, together with --cluster-tls-cert",
    commands: MEMBER_COMMANDS,
  },
  clusterTlsCa: {
    kind: "path",
    value: "FILE",
    help: "Certificates (PEM) of the authority that signed every member's, together with --cluster-tls-cert",
    commands: MEMBER_COMMANDS,
  },
  role: {
    kind: "choice",
    choices: ["full", "holder"],
    default: "full",
    help: "full runs a model and lends; holder has no model and lends all of --kv-memory",
    commands: ["serve"],
  },
  name: {
    kind: "text",
    value: "NAME",
    otherwise: "a random one",
    help: "Name in the cluster: 1 to 64 of a-z 0-9 . _ -",
    commands: ["serve", "gmanager"],
  },
  memoryPolicy: {
    kind: "text",
    value: "POLICY",
    otherwise: "builtin:infinite-llm",
    help: "Memory policy: builtin:infinite-llm, builtin:local-only, builtin:spread, a file or a URL",
    commands: MEMBER_COMMANDS,
  },
  memoryPolicyOpt: {
    kind: "pairs",
    value: "KEY=VALUE",
    default: {},
    help: "Option of the memory policy; values are JSON or else text",
    commands: MEMBER_COMMANDS,
  },
  lendShare: {
    kind: "number",
    value: "X",
    min: 0,
    max: 1,
    otherwise: "all but a reserve that follows recent use",
    help: "Most of the own KV cache that may be lent, 0 to 1",
    commands: ["serve", "cluster"],
  },
  gentleFill: {
    kind: "number",
    value: "SECONDS",
    min: 0,
    max: 3600,
    otherwise: "10",
    help: "Time after its start for which a member lends only a quarter of its free memory a second",
    commands: ["serve", "cluster"],
  },
  announce: {
    kind: "switch",
    default: false,
    help: "For programs that start this one: print one line of JSON when ready, stop when standard input ends",
    commands: ["serve", "gmanager"],
  },
  instances: {
    kind: "integer",
    value: "N",
    min: 1,
    max: 64,
    help: "Instances with the model",
    commands: ["cluster"],
  },
  holders: {
    kind: "integer",
    value: "M",
    min: 0,
    max: 64,
    default: 0,
    help: "Holders beside them",
    commands: ["cluster"],
  },
  holderMemory: {
    kind: "bytes",
    value: "SIZE",
    otherwise: "--kv-memory, or 512MiB",
    help: "KV memory of each holder",
    commands: ["cluster"],
  },
  url: {
    kind: "text",
    value: "URL",
    default: "http://127.0.0.1:8080",
    help: "Public address of any member",
    commands: ["cluster status", "ps", "move", "evacuate", "pin", "leave"],
  },
  json: {
    kind: "switch",
    default: false,
    help: "Print JSON",
    commands: ["cluster status", "ps"],
  },
  segments: {
    kind: "integer",
    value: "N",
    min: 1,
    max: 1_000_000,
    help: "How many segments to move",
    commands: ["move"],
  },
  to: {
    kind: "text",
    value: "MEMBER",
    help: "Where they go",
    commands: ["move"],
  },
  from: {
    kind: "text",
    value: "MEMBER",
    otherwise: "the sequence's home",
    help: "Where they lie",
    commands: ["move"],
  },
  undo: {
    kind: "switch",
    default: false,
    help: "Take the command back",
    commands: ["evacuate", "pin"],
  },
} as const satisfies Readonly<Record<string, FlagSpec>>;
