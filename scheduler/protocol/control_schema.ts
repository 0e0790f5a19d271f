/**
 * What each control message must look like on the wire.
 *
 * @module
 */
import { cardSchema, formatSchema, nameSchema } from "./card_schema.ts";
import type { ControlMessage } from "./messages.ts";
import { MAX_DETAIL, REFUSAL_CODES } from "./refused_codec.ts";
import { finite, integer, list, oneOf, optional, record, type Schema, table, text } from "./schema.ts";

/** Most members in one directory. */
export const MAX_MEMBERS = 4096;

/** Most leases, runs, entries or moves in one message. */
export const MAX_ENTRIES = 65536;

/** Most events in one message. */
export const MAX_EVENTS = 4096;

const id = integer();
const sequence = text(256);
const segments = integer(0, 2 ** 31);
const blockCount = integer();
const milliseconds = finite;

const slotRun = record({
  lease: id,
  stamp: id,
  from: integer(0, 2 ** 32 - 1),
  count: integer(1, 2 ** 32 - 1),
});

const blocks = record({
  total: blockCount,
  free: blockCount,
  own: blockCount,
  lent: blockCount,
  quarantined: blockCount,
  borrowed: blockCount,
  lendable: blockCount,
  filling: optional(blockCount),
});

const performance = record({
  batch: list(finite, 256),
  batchMs: list(finite, 256),
  attentionMs: finite,
  error: finite,
  steps: id,
});

const load = record({
  running: id,
  waiting: id,
  maxBatch: id,
  tokensPerSecond: finite,
  counters: table(finite, { keys: /^[\w.:\/ -]{1,64}$/, max: 256 }),
  performance: optional(performance),
});

const entry = record({
  sequence,
  member: nameSchema,
  blocks: blockCount,
  local: oneOf(true, false),
  length: id,
  ranges: list(record({ from: segments, to: segments, sinceMs: milliseconds }), MAX_ENTRIES),
  pinned: oneOf(true, false),
});

const lease = record({ lease: id, debtor: nameSchema, segments, expiresMs: milliseconds });

const move = record({
  sequence,
  from: nameSchema,
  to: nameSchema,
  segments,
  state: oneOf("copying", "done", "failed"),
  predictedGain: optional(finite),
  measuredGain: optional(finite),
});

const member = record({
  card: cardSchema,
  blocks,
  load,
  silentMs: milliseconds,
  state: oneOf("alive", "suspect", "leaving"),
});

const callOnly = <const K extends string>(kind: K) => record({ kind: oneOf(kind), call: id });

/** A schema for each kind of control message. */
export const CONTROL_SCHEMAS: {
  readonly [K in ControlMessage["kind"]]: Schema<Extract<ControlMessage, { readonly kind: K }>>;
} = {
  "heartbeat": record({
    kind: oneOf("heartbeat"),
    version: id,
    base: optional(id),
    card: cardSchema,
    blocks,
    load,
    entries: list(entry, MAX_ENTRIES),
    leases: list(lease, MAX_ENTRIES),
    moves: list(move, MAX_ENTRIES),
    leaving: oneOf(true, false),
  }),
  "heartbeat-ack": record({
    kind: oneOf("heartbeat-ack"),
    version: id,
    wantFull: oneOf(true, false),
    members: list(member, MAX_MEMBERS),
  }),
  "move-kvcache": record({
    kind: oneOf("move-kvcache"),
    call: id,
    sequence,
    segments,
    from: nameSchema,
    to: nameSchema,
    predictedGain: optional(finite),
  }),
  "move-result": record({ kind: oneOf("move-result"), call: id, moved: segments, problem: optional(text(4096)) }),
  "try-move-kvcache": record({ kind: oneOf("try-move-kvcache"), call: id, sequence, segments, format: formatSchema }),
  "granted": record({ kind: oneOf("granted"), call: id, run: slotRun, ttlMs: milliseconds }),
  "renew": record({ kind: oneOf("renew"), call: id, leases: list(id, MAX_ENTRIES) }),
  "renewed": record({ kind: oneOf("renewed"), call: id, dead: list(id, MAX_ENTRIES), ttlMs: milliseconds }),
  "release": record({ kind: oneOf("release"), call: id, runs: list(slotRun, MAX_ENTRIES) }),
  "released": callOnly("released"),
  "recall": record({ kind: oneOf("recall"), call: id, segments, withinMs: milliseconds }),
  "revoked": record({ kind: oneOf("revoked"), leases: list(id, MAX_ENTRIES) }),
  "submit": record({ kind: oneOf("submit"), call: id, request: record({ json: text(2 ** 24) }) }),
  "accepted": callOnly("accepted"),
  "rejected": record({
    kind: oneOf("rejected"),
    call: id,
    message: text(65536),
    code: text(256),
    status: integer(100, 599),
  }),
  "events": record({ kind: oneOf("events"), call: id, first: id, events: list(text(2 ** 22), MAX_EVENTS) }),
  "cancel": callOnly("cancel"),
  "handed-back": callOnly("handed-back"),
  "ping": callOnly("ping"),
  "pong": callOnly("pong"),
  "operate": record({ kind: oneOf("operate"), call: id, command: text(65536) }),
  "operated": record({ kind: oneOf("operated"), call: id, result: text(2 ** 24) }),
  "bye": record({ kind: oneOf("bye") }),
  "refused": record({
    kind: oneOf("refused"),
    call: id,
    code: oneOf(...REFUSAL_CODES),
    detail: text(MAX_DETAIL),
  }),
};
