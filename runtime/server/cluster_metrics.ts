/**
 * Metrics of an instance as a member of a cluster.
 *
 * @module
 */
import { Counter, Gauge, type Registry } from "prom-client";
import type { RefusalCode } from "../../scheduler/protocol/messages.ts";
import type { ClusterReport, ReportedMember } from "../cluster/report.ts";

/**
 * Counters of `LoadReport.counters` that are exported: name there, name of the metric, help. Seconds may have fractions.
 * Names that are not listed here are left out.
 */
export const CLUSTER_COUNTERS: readonly (readonly [counter: string, metric: string, help: string])[] = [
  [
    "remote_attention_seconds",
    "remote_attention_seconds_total",
    "Seconds from questions to answers of members, summed.",
  ],
  ["remote_layers", "remote_layers_total", "Layers that asked other members for partials."],
  ["remote_layer_waits", "remote_layer_waits_total", "Layers that had to wait for these partials."],
  ["remote_layer_wait_seconds", "remote_layer_wait_seconds_total", "Seconds that layers waited for them."],
  ["attention_served", "attention_served_total", "Questions of other members answered with partials."],
  ["segments_reserved", "segments_reserved_total", "Segments reserved at other members."],
  ["reservations_refused", "reservations_refused_total", "Reservations that other members refused."],
  ["segments_recalled", "segments_recalled_total", "Lent segments called back."],
  ["segments_lost", "segments_lost_total", "Borrowed segments lost with their member or lease."],
  ["leases_expired", "leases_expired_total", "Leases granted here that ran out."],
  ["leases_recalled", "leases_recalled_total", "Leases granted here that were ended by a recall."],
  ["leases_gone", "leases_gone_total", "Leases granted here whose borrower was lost."],
  ["leases_revoked", "leases_revoked_total", "Leases granted here that were taken back."],
  ["moves_done", "moves_done_total", "Moves of KV that ended well."],
  ["moves_failed", "moves_failed_total", "Moves of KV that left everything where it was."],
  ["peers_lost", "peers_lost_total", "Members that no longer answered."],
  ["retries", "retries_total", "Questions to members that were sent again."],
  ["repairs", "repairs_total", "Repairs of token ranges that were lost with a member."],
  ["repaired_tokens", "repaired_tokens_total", "Tokens computed again by repairs."],
  ["lost_steps", "lost_steps_total", "Steps that were given up because a member was lost."],
  ["requests_forwarded", "requests_forwarded_total", "Requests asked for here that run on other members."],
  ["restarts", "restarts_total", "Requests that began again on another member."],
  ["requests_lost", "requests_lost_total", "Requests that ended in an error because no member could take them."],
  ["bytes_in", "bytes_in_total", "Bytes of KV received from other members."],
  ["bytes_out", "bytes_out_total", "Bytes of KV sent to other members."],
];

/** Prefix of the counters of refusals; a {@linkcode RefusalCode} follows. */
export const REFUSED_PREFIX = "refused_";

const REFUSALS: readonly string[] = Object.keys(
  {
    unknown_lease: true,
    wrong_debtor: true,
    expired: true,
    stale_stamp: true,
    stale_epoch: true,
    bad_slot: true,
    bad_shape: true,
    not_finite: true,
    no_space: true,
    over_cap: true,
    wrong_format: true,
    leaving: true,
    bad_digest: true,
    unable: true,
    wrong_incarnation: true,
  } satisfies Record<RefusalCode | "wrong_incarnation", true>,
);

type Reading = readonly [
  name: string,
  help: string,
  read: (report: ClusterReport, own: ReportedMember) => number,
];

const GAUGES: readonly Reading[] = [
  ["bytes_lent", "Bytes of other members' sequences that lie here.", (report, own) => bytesLent(report, own.id)],
  ["bytes_borrowed", "Bytes of own sequences that lie elsewhere.", (report, own) => bytesBorrowed(report, own.id)],
  ["reachable_model_len", "Longest prompt plus output that runs now, tokens.", (report) => report.reachableModelLen],
  ["epoch", "Epoch of the gManager.", (report) => report.epoch],
  ["manager_reached", "Whether a gManager is reached, 0 or 1.", (report) => report.manager === undefined ? 0 : 1],
  [
    "performance_error",
    "Mean absolute relative error of the performance model's fit.",
    (_report, own) => own.load.performance?.error ?? 0,
  ],
];

const BLOCK_STATES = ["total", "free", "own", "lent", "borrowed", "quarantined", "lendable"] as const;
const MEMBER_STATES = ["alive", "suspect", "leaving"] as const;

/** Where the metrics go. */
export interface ClusterMetricsOptions {
  /** Where the metrics are registered. */
  readonly registry: Registry;
  /** First part of every name, before `:cluster_`. */
  readonly prefix: string;
}

/** Shows a report's counts of the member that wrote it. */
export class ClusterMetrics {
  readonly #gauges: readonly { readonly gauge: Gauge; readonly read: Reading[2] }[];
  readonly #counters: readonly { readonly counter: Counter; readonly name: string }[];
  readonly #refusals: Counter<"code">;
  readonly #blocks: Gauge<"state">;
  readonly #members: Gauge<"state">;
  readonly #leases: Gauge<"side">;

  /** Registers the metrics. */
  constructor({ registry, prefix }: ClusterMetricsOptions) {
    const named = (name: string, help: string) => ({ registers: [registry], name: `${prefix}:cluster_${name}`, help });
    this.#gauges = GAUGES.map(([name, help, read]) => ({ gauge: new Gauge(named(name, help)), read }));
    this.#counters = CLUSTER_COUNTERS.map(([name, metric, help]) => {
      return { counter: new Counter(named(metric, help)), name };
    });
    this.#refusals = new Counter({ ...named("refusals_total", "Requests refused, by code."), labelNames: ["code"] });
    this.#blocks = new Gauge({ ...named("blocks", "Own KV blocks by state."), labelNames: ["state"] });
    this.#members = new Gauge({ ...named("members", "Members as known here, by state."), labelNames: ["state"] });
    this.#leases = new Gauge({ ...named("leases", "Leases, granted or held."), labelNames: ["side"] });
  }

  /** Takes over what `report` says about its writer. */
  refresh(report: ClusterReport): void {
    for (const state of MEMBER_STATES) {
      this.#members.set({ state }, report.members.filter((member) => member.state === state).length);
    }
    this.#leases.set({ side: "granted" }, report.leases.filter(({ creditor }) => creditor === report.from).length);
    this.#leases.set({ side: "held" }, report.leases.filter(({ debtor }) => debtor === report.from).length);
    const own = report.members.find(({ id }) => id === report.from);
    if (own === undefined) return;
    for (const { gauge, read } of this.#gauges) gauge.set(read(report, own));
    for (const state of BLOCK_STATES) this.#blocks.set({ state }, own.blocks[state]);
    const counters = new Map(Object.entries(own.load.counters));
    for (const { counter, name } of this.#counters) {
      counter.reset();
      counter.inc(counters.get(name) ?? 0);
    }
    this.#refusals.reset();
    for (const code of REFUSALS) this.#refusals.inc({ code }, counters.get(`${REFUSED_PREFIX}${code}`) ?? 0);
  }
}

function bytesLent(report: ClusterReport, id: string): number {
  return rangeBytes(report, (home, instance) => home !== id && instance === id);
}

function bytesBorrowed(report: ClusterReport, id: string): number {
  return rangeBytes(report, (home, instance) => home === id && instance !== id);
}

function rangeBytes(report: ClusterReport, counts: (home: string, instance: string) => boolean): number {
  let bytes = 0;
  for (const { home, ranges } of report.sequences) {
    for (const range of ranges) if (counts(home, range.instance)) bytes += range.bytes;
  }
  return bytes;
}
