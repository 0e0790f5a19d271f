/**
 * `infinite-llm gmanager`.
 *
 * @module
 */
import { openManager } from "../../cluster/open_manager.ts";
import { createLogger } from "../../server/logger.ts";
import { announcementLine } from "../announcement.ts";
import { clusterOptions } from "../cluster_settings.ts";
import type { CommandInput } from "../main.ts";
import { leaveCluster, ownEntry } from "../membership.ts";
import { awaitStop } from "../stop_signals.ts";
import { UsageError } from "../usage_error.ts";

/** A manager holds nothing, so it has nothing to wait for. */
const LEAVE_MS = 2000;

/** Runs a gManager until it is asked to stop. */
export async function gmanager({ settings }: CommandInput): Promise<number> {
  const cluster = await clusterOptions(settings);
  if (cluster === undefined) throw new UsageError("Cannot start a gManager: wanted --listen HOST:PORT, got none");
  const logger = createLogger({ level: settings.logLevel, format: settings.logFormat });
  await using manager = await openManager({ cluster, log: (message) => logger.info("cluster", { message }) });
  using stop = awaitStop({ announced: settings.announce });
  const { id: name, clusterUrl } = await ownEntry(manager.cluster);
  console.log(
    settings.announce
      ? announcementLine({ url: "", name, role: "manager", clusterUrl })
      : `gManager ${name} is reached at ${clusterUrl}`,
  );
  await Promise.race([stop.asked, manager.cluster.leaveAsked ?? new Promise(() => {})]);
  const left = await leaveCluster(manager.cluster, LEAVE_MS);
  await logger.flush();
  return left ? 0 : 1;
}
