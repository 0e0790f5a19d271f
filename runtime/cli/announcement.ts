/**
 * The line by which a started program tells the one that started it where it is reached.
 *
 * @module
 */
import type { ReportedMember } from "../cluster/report.ts";

/** What is told. */
export interface Announcement {
  /** Kind of line. */
  readonly kind: "ready";
  /** Process id. */
  readonly pid: number;
  /** Where the public API is reached; empty without one. */
  readonly url: string;
  /** Name in the cluster; empty without one. */
  readonly name: string;
  /** What it does. */
  readonly role: ReportedMember["role"];
  /** Where the cluster port is reached; empty without one. */
  readonly clusterUrl: string;
}

/** The line, without a line feed. */
export function announcementLine(announcement: Omit<Announcement, "kind" | "pid">): string {
  return JSON.stringify({ kind: "ready", pid: Deno.pid, ...announcement } satisfies Announcement);
}

/** Reads a line; undefined when it announces nothing. */
export function readAnnouncement(line: string): Announcement | undefined {
  if (!line.startsWith('{"kind":"ready"')) return undefined;
  let value: Partial<Record<keyof Announcement, unknown>>;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  const { pid, url, name, role, clusterUrl } = value;
  if (
    typeof pid !== "number" || typeof url !== "string" || typeof name !== "string" || typeof clusterUrl !== "string" ||
    (role !== "full" && role !== "holder" && role !== "manager")
  ) return undefined;
  return { kind: "ready", pid, url, name, role, clusterUrl };
}
