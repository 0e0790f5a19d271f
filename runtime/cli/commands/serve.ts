/**
 * `infinite-llm serve`.
 *
 * @module
 */
import type { EngineInfo } from "../../engine/request.ts";
import { formatBytes } from "../../hub/format_bytes.ts";
import { createLogger } from "../../server/logger.ts";
import { announcementLine } from "../announcement.ts";
import { clusterOptions, publicUrl } from "../cluster_settings.ts";
import { type CommandInput, DEVICE_LOST_STATUS, oneLine } from "../main.ts";
import { leaveCluster, ownEntry } from "../membership.ts";
import { namedModel } from "../named_model.ts";
import { openHub } from "../open_hub.ts";
import { readFlagFile } from "../read_flag_file.ts";
import { doorOptions, readServerFiles } from "../server_files.ts";
import { type StartingModel, startModel } from "../start_model.ts";
import { awaitStop } from "../stop_signals.ts";

/** How long answers may take to be sent after the device was lost, ms. */
const LOST_DRAIN_MS = 1000;

/** Serves a model, or lends memory, until it is asked to stop. */
export async function serve(input: CommandInput): Promise<number> {
  const { settings } = input;
  if (settings.role === "holder") return await (await import("./serve_holder.ts")).serveHolder(input);
  const chatTemplate = settings.chatTemplate && await readFlagFile("--chat-template", settings.chatTemplate);
  const files = await readServerFiles(settings);
  const cluster = await clusterOptions(settings);
  const model = await openHub(input).hub.find(namedModel(input));
  const logger = createLogger({ level: settings.logLevel, format: settings.logFormat });
  const started = Promise.withResolvers<StartingModel>();
  const start = (member?: typeof cluster) => {
    const log = (message: string) => logger.info("engine", { message });
    started.resolve(startModel(settings, { model, chatTemplate, log, cluster: member }));
  };
  if (cluster === undefined) start();
  // Loaded meanwhile: the model takes longer.
  const { startServer } = await import("../../server/server.ts");
  const server = await startServer({
    ...doorOptions(settings, files),
    engine: whenLoaded(started.promise.then(({ engine }) => engine)),
    text: whenLoaded(started.promise.then(({ text }) => text)),
    servedModelNames: settings.servedModelName,
    logger,
  });
  // A member tells the others where its public API is, so it must be known first.
  if (cluster !== undefined) start({ ...cluster, publicUrl: publicUrl(server.url, settings) });
  const say = settings.announce ? () => {} : console.log;
  say(`Listening on ${server.url}`);
  using stop = awaitStop({ announced: settings.announce });
  const { engine, text } = await started.promise;
  const loaded = await Promise.race([Promise.all([engine, text]), stop.asked]);
  const member = loaded?.[0].cluster;
  if (loaded !== undefined) {
    for (const line of readyLines(loaded[0].info, { url: server.url, secured: files.apiKeys.length > 0 })) say(line);
    const own = member && await ownEntry(member);
    if (own !== undefined) say(`Cluster: ${own.id} is reached at ${own.clusterUrl}${own.manager ? ", gManager" : ""}`);
    if (settings.announce) {
      const { id: name = "", clusterUrl = "" } = own ?? {};
      console.log(announcementLine({ url: server.url, name, role: "full", clusterUrl }));
    }
    const lost = await Promise.race([
      stop.asked,
      member?.leaveAsked ?? new Promise<never>(() => {}),
      loaded[0].deviceLost ?? new Promise<never>(() => {}),
    ]);
    if (lost instanceof Error) {
      console.error(`infinite-llm: ${oneLine(lost)}`);
      // Every request has its end by now; what is left is to send it.
      await server.drain(LOST_DRAIN_MS);
      await logger.flush();
      return DEVICE_LOST_STATUS;
    }
  }
  if (!settings.announce) {
    console.error(`Stopping: running requests may take ${settings.shutdownTimeout} s more, a second signal ends them`);
  }
  await server.drain(settings.shutdownTimeout * 1000);
  const left = member === undefined || await leaveCluster(member, settings.shutdownTimeout * 1000);
  // What is still loading ends with the process.
  await Promise.all((loaded ?? []).map((part) => part[Symbol.asyncDispose]()));
  await logger.flush();
  return left ? 0 : 1;
}

/** The same promise without its failure, which ends this command and is told once, by it. */
function whenLoaded<T>(loading: Promise<T>): Promise<T> {
  return new Promise((resolve) => void loading.then(resolve, () => {}));
}

function readyLines(
  info: EngineInfo,
  { url: listening, secured }: { readonly url: string; readonly secured: boolean },
): string[] {
  const seconds = (performance.now() / 1000).toFixed(1);
  // An address that stands for all of the machine's is none to connect to.
  const url = publicUrl(listening, { advertise: undefined });
  const messages = [{ role: "user", content: "Name the capital city of Italy." }];
  const body = JSON.stringify({ messages, max_tokens: 64, temperature: 0 });
  const key = secured ? ` -H "authorization: Bearer $API_KEY"` : "";
  return [
    `Ready in ${seconds} s: ${info.model} on ${info.device}; KV cache of ${info.kvTokens} tokens, ` +
    `${formatBytes(info.kvBytes)}`,
    `Try: curl ${url}/v1/chat/completions${key} -H "content-type: application/json" -d '${body}'`,
  ];
}
