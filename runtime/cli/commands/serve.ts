/**
 * `infinite-llm serve`.
 *
 * @module
 */
import type { EngineInfo } from "../../engine/request.ts";
import { formatBytes } from "../../hub/format_bytes.ts";
import { loadApiKeys } from "../../server/api_keys.ts";
import { createLogger } from "../../server/logger.ts";
import type { RunningServer } from "../../server/server.ts";
import type { Settings } from "../flags.ts";
import type { CommandInput } from "../main.ts";
import { namedModel } from "../named_model.ts";
import { openHub } from "../open_hub.ts";
import { readFlagFile } from "../read_flag_file.ts";
import { checkDevice, startModel } from "../start_model.ts";
import { listenForStop } from "../stop_signals.ts";

/** Serves a model until it is asked to stop. */
export async function serve(input: CommandInput): Promise<number> {
  const { settings } = input;
  checkDevice(settings);
  const files = await readFiles(settings);
  const model = await openHub(input).hub.find(namedModel(input));
  const logger = createLogger({ level: settings.logLevel, format: settings.logFormat });
  const log = (message: string) => logger.info("scheduler policy", { message });
  const starting = startModel(settings, { model, chatTemplate: files.chatTemplate, log });
  // Loaded meanwhile: the model takes longer.
  const { startServer } = await import("../../server/server.ts");
  const server = await startServer({
    engine: whenLoaded(starting.engine),
    text: whenLoaded(starting.text),
    hostname: settings.host.replace(/^\[(.*)\]$/, "$1"),
    port: settings.port,
    apiKeys: files.apiKeys,
    tls: files.tls,
    corsOrigins: settings.corsOrigin,
    servedModelNames: settings.servedModelName,
    allowInsecureBind: settings.allowInsecureBind,
    logger,
  });
  console.log(`Listening on ${server.url}`);
  const stopped = Promise.withResolvers<undefined>();
  let asked = false;
  using _signals = listenForStop((status) => {
    // Whoever asks twice does not want to wait.
    if (asked) Deno.exit(status);
    asked = true;
    stopped.resolve(undefined);
  });
  const loading = Promise.all([starting.engine, starting.text]);
  const loaded = await Promise.race([loading, stopped.promise]);
  if (loaded !== undefined) {
    const secured = files.apiKeys.length > 0;
    for (const line of readyLines(loaded[0].info, { server, secured })) console.log(line);
    await stopped.promise;
  }
  console.error(`Stopping: running requests may take ${settings.shutdownTimeout} s more, a second signal ends them`);
  await server.drain(settings.shutdownTimeout * 1000);
  // What is still loading ends with the process.
  await Promise.all((loaded ?? []).map((part) => part[Symbol.asyncDispose]()));
  await logger.flush();
  return 0;
}

/** The same promise without its failure, which ends this command and is told once, by it. */
function whenLoaded<T>(loading: Promise<T>): Promise<T> {
  return new Promise((resolve) => void loading.then(resolve, () => {}));
}

/** Contents of the files that flags name. */
async function readFiles({ chatTemplate, apiKeyFile, tlsCert, tlsKey }: Settings) {
  // Reading it this way first gives the errors of all file flags the same form.
  if (apiKeyFile !== undefined) await readFlagFile("--api-key-file", apiKeyFile);
  return {
    chatTemplate: chatTemplate && await readFlagFile("--chat-template", chatTemplate),
    apiKeys: apiKeyFile === undefined ? [] : await loadApiKeys(apiKeyFile),
    tls: tlsCert === undefined || tlsKey === undefined ? undefined : {
      cert: await readFlagFile("--tls-cert", tlsCert),
      key: await readFlagFile("--tls-key", tlsKey),
    },
  };
}

function readyLines(
  info: EngineInfo,
  { server, secured }: { readonly server: RunningServer; readonly secured: boolean },
): string[] {
  const seconds = (performance.now() / 1000).toFixed(1);
  // An address that stands for all of the machine's is none to connect to.
  const url = server.url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:");
  const messages = [{ role: "user", content: "Name the capital city of Italy." }];
  const body = JSON.stringify({ messages, max_tokens: 64, temperature: 0 });
  const key = secured ? ` -H "authorization: Bearer $API_KEY"` : "";
  return [
    `Ready in ${seconds} s: ${info.model} on ${info.device}; KV cache of ${info.kvTokens} tokens, ` +
    `${formatBytes(info.kvBytes)}`,
    `Try: curl ${url}/v1/chat/completions${key} -H "content-type: application/json" -d '${body}'`,
  ];
}
