/**
 * `infinite-llm serve --role holder`: memory for others, without a model.
 *
 * @module
 */
import { type OpenedMember, openHolder } from "../../cluster/open_holder.ts";
import { DEFAULT_HOLDER_BYTES } from "../../device/open_holder_store.ts";
import { DEFAULT_MODEL } from "../../hub/known_models.ts";
import { formatBytes } from "../../hub/format_bytes.ts";
import { createLogger } from "../../server/logger.ts";
import { startHolderServer } from "../../server/server.ts";
import { announcementLine } from "../announcement.ts";
import { clusterOptions, publicUrl } from "../cluster_settings.ts";
import type { CommandInput } from "../main.ts";
import { leaveCluster, ownEntry } from "../membership.ts";
import { doorOptions, readServerFiles } from "../server_files.ts";
import { namedDevice } from "../start_model.ts";
import { awaitStop } from "../stop_signals.ts";
import { UsageError } from "../usage_error.ts";

/** Lends memory until it is asked to stop. */
export async function serveHolder({ settings, words: [word] }: CommandInput): Promise<number> {
  if (word !== undefined) throw new UsageError(`Cannot start a holder with a model: wanted none, got ${word}`);
  if (settings.model !== DEFAULT_MODEL) console.error(`A holder has no model: ${settings.model} is not used`);
  const files = await readServerFiles(settings);
  const cluster = await clusterOptions(settings);
  if (cluster === undefined) throw new UsageError("Cannot start a holder: wanted --join or --cluster-listen");
  const logger = createLogger({ level: settings.logLevel, format: settings.logFormat });
  const opened = Promise.withResolvers<OpenedMember>();
  opened.promise.catch(() => {});
  const server = await startHolderServer({ ...doorOptions(settings, files), holder: opened.promise, logger });
  const device = namedDevice(settings);
  const kvBytes = settings.kvMemory;
  opened.resolve(openHolder({
    cluster: { ...cluster, publicUrl: publicUrl(server.url, settings) },
    kvBytes,
    threads: settings.threads ?? 1,
    device: {
      ...device,
      memoryUtilization: settings.gpuMemoryUtilization,
      deterministic: settings.deterministic,
    },
    log: (message) => logger.info("cluster", { message }),
  }));
  const say = settings.announce ? () => {} : console.log;
  say(`Listening on ${server.url}`);
  using stop = awaitStop({ announced: settings.announce });
  const holder = await Promise.race([opened.promise, stop.asked]);
  if (holder !== undefined) {
    const { id: name, clusterUrl } = await ownEntry(holder.cluster);
    const seconds = (performance.now() / 1000).toFixed(1);
    const lent = kvBytes === undefined && device.kind === "cuda"
      ? "what its GPU has"
      : formatBytes(kvBytes ?? DEFAULT_HOLDER_BYTES);
    say(`Ready in ${seconds} s: holder ${name} lends ${lent}, reached at ${clusterUrl}`);
    if (settings.announce) console.log(announcementLine({ url: server.url, name, role: "holder", clusterUrl }));
    await Promise.race([stop.asked, holder.cluster.leaveAsked ?? new Promise(() => {})]);
  }
  const seconds = settings.shutdownTimeout;
  if (!settings.announce) {
    console.error(`Stopping: what others have here may take ${seconds} s to move, a second signal ends it`);
  }
  const left = holder === undefined || await leaveCluster(holder.cluster, seconds * 1000);
  // Shown to the end: an operator wants to see how it leaves.
  await server.drain(seconds * 1000);
  await holder?.[Symbol.asyncDispose]();
  await logger.flush();
  return left ? 0 : 1;
}
