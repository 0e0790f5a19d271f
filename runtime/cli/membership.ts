/**
 * What a command does for the member of a cluster that it runs.
 *
 * @module
 */
import type { ClusterControl, ReportedMember } from "../cluster/report.ts";
import { oneLine } from "./main.ts";

/** More than a member takes when it keeps to its time. */
const GRACE_MS = 2000;

/** The entry of the member that `cluster` belongs to. @throws {Error} when its report does not list it. */
export async function ownEntry(cluster: ClusterControl): Promise<ReportedMember> {
  const { from, members } = await cluster.report();
  const own = members.find(({ id }) => id === from);
  if (own === undefined) {
    throw new Error(`Cannot tell where ${from} is reached: its report lists ${members.length} others`);
  }
  return own;
}

/**
 * Lets the member leave within `timeoutMs`. Gives whether it left in order; a member that did not is told on standard
 * error, and the others find out by its silence.
 */
export async function leaveCluster(cluster: ClusterControl, timeoutMs: number): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve("its time is over"), timeoutMs + GRACE_MS);
  });
  const problem = await Promise.race([cluster.leave(timeoutMs).then(() => undefined, oneLine), late]);
  clearTimeout(timer);
  if (problem !== undefined) console.error(`infinite-llm: Cannot leave the cluster in order: ${problem}`);
  return problem === undefined;
}
