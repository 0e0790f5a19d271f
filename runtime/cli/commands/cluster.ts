/**
 * `infinite-llm cluster`: a whole cluster on this machine.
 *
 * @module
 */
import type { ClusterReport } from "../../cluster/report.ts";
import { defaultCacheDirectory } from "../../hub/cache_directory.ts";
import { publicUrl } from "../cluster_settings.ts";
import type { CommandInput } from "../main.ts";
import { OperatorClient } from "../operator_client.ts";
import { LiveTable } from "../pool/live_table.ts";
import { Pool } from "../pool/pool.ts";
import type { Spawn } from "../pool/pool_child.ts";
import { firstSpec, otherSpecs } from "../pool/pool_specs.ts";
import { poolTable } from "../pool/pool_table.ts";
import { ownPermissions, spawnSelf } from "../pool/spawn_self.ts";
import { readClusterTls } from "../read_cluster_tls.ts";
import { readOperatorKey } from "../read_operator_key.ts";
import { awaitStop } from "../stop_signals.ts";

const DEFAULT_COLUMNS = 80;
const TERMINAL_MS = 1000;
const LINES_MS = 10_000;
/** For a child to end by itself after its requests and its place in the cluster had their time. */
const GRACE_MS = 15_000;

/** Starts a cluster and shows it until it is asked to stop or no instance is left. */
export async function cluster(input: CommandInput): Promise<number> {
  const { settings, env } = input;
  // Every child reads them again; this way what is wrong is said once, and before anything runs.
  await readClusterTls(settings);
  const permissions = ownPermissions({ cacheDirectory: settings.cacheDir ?? defaultCacheDirectory({ env }) });
  const key = settings.apiKeyFile === undefined ? undefined : await readOperatorKey(settings.apiKeyFile);
  if (settings.apiKeyFile !== undefined && key === undefined) {
    console.error("The table will show no memory: --api-key-file holds no key as it is, only digests");
  }
  return await runPool(input, { key, spawn: (args) => spawnSelf(args, permissions) });
}

/** What {@linkcode runPool} works with. */
export interface RunPoolOptions {
  /** Key with which the members are asked. */
  readonly key?: string;
  /** Starts a child. */
  readonly spawn: Spawn;
}

/** Runs a pool. Gives the exit status: 1 when the first instance does not start, none is left or one ends badly. */
export async function runPool({ settings }: Pick<CommandInput, "settings">, options: RunPoolOptions): Promise<number> {
  const terminal = Deno.stdout.isTerminal();
  const table = new LiveTable({
    write: (text) => writeAll(text),
    // Some terminals do not know their size.
    width: () => terminal ? Deno.consoleSize().columns || DEFAULT_COLUMNS : undefined,
  });
  const pool: Pool = new Pool({
    spawn: options.spawn,
    onEvent: (event) => {
      const { name, role } = event.child.spec;
      switch (event.kind) {
        case "line":
          table.print(`[${name}] ${event.line}`);
          break;
        case "ready":
          table.print(`${name} is ready: ${role}, process ${event.child.pid}, ${event.child.announcement?.url}`);
          break;
        case "ended":
          table.print(`${name} has ended${event.child.asked ? "" : " by itself"}: ${event.child.ending}`);
          break;
      }
    },
  });
  using stop = awaitStop({
    onSecond: (status) => {
      pool.kill();
      Deno.exit(status);
    },
  });
  const started = await start(pool, { settings, asked: stop.asked });
  if (started === "failed") {
    console.error("infinite-llm: Cannot start the cluster: its first instance has ended, see above");
    return 1;
  }
  if (started === "ready") {
    table.print(`Listening on ${pool.children[0].announcement?.url}, the public address of the cluster`);
  }
  const watching = new AbortController();
  const watched = watch(pool, {
    table,
    key: options.key,
    ms: terminal ? TERMINAL_MS : LINES_MS,
    signal: watching.signal,
  });
  const reason = await Promise.race([stop.asked, pool.ended().then(() => "none left" as const)]);
  watching.abort();
  await watched;
  // What the members said of their memory is no longer so.
  table.hide();
  if (reason === "none left") {
    console.error("infinite-llm: Cannot go on: every instance has ended");
    return 1;
  }
  table.print("Stopping: running requests may finish; a second signal ends every instance");
  const well = await pool.stop(2 * settings.shutdownTimeout * 1000 + GRACE_MS);
  return well ? 0 : 1;
}

/** Starts the first child, then those that join it. */
async function start(
  pool: Pool,
  { settings, asked }: Pick<CommandInput, "settings"> & { readonly asked: Promise<undefined> },
): Promise<"ready" | "failed" | "stopped"> {
  const first = pool.add(firstSpec(settings));
  const ready = await Promise.race([first.ready.then((announcement) => announcement ?? "ended"), asked]);
  if (ready === undefined) return "stopped";
  if (ready === "ended") {
    await first.ended;
    return "failed";
  }
  for (const spec of otherSpecs(settings, ready.clusterUrl)) pool.add(spec);
  return "ready";
}

interface WatchOptions {
  readonly table: LiveTable;
  readonly key?: string;
  /** Time between two looks. */
  readonly ms: number;
  readonly signal: AbortSignal;
}

/** Shows the pool again and again. */
async function watch(pool: Pool, { table, key, ms, signal }: WatchOptions): Promise<void> {
  while (!signal.aborted) {
    const report = await reportOf(pool, key);
    if (signal.aborted) return;
    table.show(poolTable(pool.children, report));
    await pause(ms, signal);
  }
}

/** What the first member that answers says; those that serve HTTPS are left out, their certificate names another host. */
async function reportOf(pool: Pool, key: string | undefined): Promise<ClusterReport | undefined> {
  for (const { state, announcement } of pool.children) {
    if (state !== "ready" || announcement === undefined || !announcement.url.startsWith("http:")) continue;
    try {
      const url = publicUrl(announcement.url, { advertise: undefined });
      return await new OperatorClient({ url, key }).report();
    } catch {
      // The next one may answer; without any answer the processes are shown alone.
    }
  }
  return undefined;
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
  });
}

function writeAll(text: string): void {
  for (let rest = new TextEncoder().encode(text); rest.length > 0;) rest = rest.subarray(Deno.stdout.writeSync(rest));
}
