/**
 * A cluster report as tables for people.
 *
 * @module
 */
import { formatBytes } from "../hub/format_bytes.ts";
import type { ClusterReport, ReportedMember, ReportedSequence } from "../cluster/report.ts";
import { aligned } from "./aligned.ts";

const MEMBER_HEAD = ["MEMBER", "ROLE", "STATE", "OWN", "LENT", "BORROWED", "FREE", "TOTAL", "RUN", "WAIT", "TOKENS/S"];
const MEMBER_NUMBERS = [3, 4, 5, 6, 7, 8, 9, 10];
const SEQUENCE_HEAD = ["SEQUENCE", "HOME", "TOKENS", "KV", "PINNED", "WHERE"];

/** Members and sequences. */
export function placementLines(report: ClusterReport): string[] {
  return [...memberLines(report.members), "", ...sequenceLines(report.sequences)];
}

/** Everything. */
export function statusLines(report: ClusterReport): string[] {
  const manager = report.manager === undefined
    ? `no gManager is reached, so only ${report.from} is listed`
    : `gManager ${report.manager}, epoch ${report.epoch}`;
  return [
    `${report.from}: ${manager}`,
    `memory policy ${report.memoryPolicy}; blocks of ${report.blockTokens} tokens, segments of ${report.segmentTokens}`,
    `longest prompt plus output now: ${report.reachableModelLen} tokens`,
    "",
    ...placementLines(report),
    "",
    ...leaseLines(report),
    "",
    ...moveLines(report),
    "",
    ...addressLines(report.members),
  ];
}

/** A member's tokens a second as tables show them. */
export function tokenRate(member: ReportedMember): string {
  return member.load.tokensPerSecond.toFixed(1);
}

function memberLines(members: readonly ReportedMember[]): string[] {
  const rows = members.map((member) => {
    const { id, role, manager, blocks, load } = member;
    return [
      id,
      manager ? `${role}, gManager` : role,
      stateOf(member),
      ...[blocks.own, blocks.lent, blocks.borrowed, blocks.free, blocks.total, load.running, load.waiting].map(String),
      tokenRate(member),
    ];
  });
  return aligned([MEMBER_HEAD, ...rows], { right: MEMBER_NUMBERS });
}

function stateOf({ state, silentMs }: ReportedMember): string {
  return state === "suspect" ? `silent ${duration(silentMs)}` : state;
}

function sequenceLines(sequences: readonly ReportedSequence[]): string[] {
  if (sequences.length === 0) return ["no sequences"];
  const rows = sequences.map(({ id, home, length, pinned, ranges }) => [
    id,
    home,
    String(length),
    formatBytes(ranges.reduce((sum, { bytes }) => sum + bytes, 0)),
    pinned ? "yes" : "",
    ranges.map(({ instance, start, end }) => `${instance} ${start}-${end}`).join(", "),
  ]);
  return aligned([SEQUENCE_HEAD, ...rows], { right: [2, 3] });
}

function leaseLines({ leases }: ClusterReport): string[] {
  if (leases.length === 0) return ["no leases"];
  const rows = leases.map((lease) => [
    lease.id,
    lease.creditor,
    lease.debtor,
    String(lease.segments),
    duration(lease.expiresMs),
  ]);
  return aligned([["LEASE", "LENDER", "BORROWER", "SEGMENTS", "EXPIRES"], ...rows], { right: [3, 4] });
}

function moveLines({ moves }: ClusterReport): string[] {
  if (moves.length === 0) return ["no moves"];
  const gain = (value: number | undefined) => value === undefined ? "" : value.toFixed(1);
  const rows = moves.map(({ sequence, from, to, segments, state, predictedGain, measuredGain }) => {
    return [sequence, from, to, String(segments), state, gain(predictedGain), gain(measuredGain)];
  });
  const head = ["MOVE", "FROM", "TO", "SEGMENTS", "STATE", "PREDICTED", "MEASURED TOKENS/S"];
  return aligned([head, ...rows], { right: [3, 5, 6] });
}

function addressLines(members: readonly ReportedMember[]): string[] {
  const rows = members.map(({ id, pid, url, clusterUrl, load: { performance } }) => {
    const fit = performance === undefined ? "" : `${(performance.error * 100).toFixed(1)} % of ${performance.steps}`;
    return [id, String(pid), url === "" ? "none" : url, clusterUrl, fit];
  });
  return aligned([["MEMBER", "PID", "PUBLIC", "CLUSTER PORT", "FIT ERROR"], ...rows], { right: [1] });
}

function duration(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
