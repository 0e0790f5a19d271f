/**
 * What the flags of clusters say together.
 *
 * @module
 */
import type { ClusterOptions } from "../cluster/options.ts";
import type { CommandName } from "./commands.ts";
import { clusterUrl, type Endpoint, isLocal, isWildcard, parseClusterUrl, parseEndpoint } from "./endpoint.ts";
import type { Settings } from "./flags.ts";
import { readClusterKey } from "./read_cluster_key.ts";
import { type ClusterTlsSettings, readClusterTls } from "./read_cluster_tls.ts";
import { UsageError } from "./usage_error.ts";

const NAME = /^[a-z0-9._-]{1,64}$/;
const ANY_PORT: Endpoint = { host: "127.0.0.1", port: 0 };

/** Whether `settings` of `serve` put the instance into a cluster. */
export function inCluster({ join, clusterListen }: Pick<Settings, "join" | "clusterListen">): boolean {
  return join.length > 0 || clusterListen !== undefined;
}

/**
 * Checks the flags of clusters against each other.
 *
 * @throws {UsageError} when they contradict each other, or an address would let strangers in.
 */
export function checkClusterFlags(command: CommandName, settings: Settings): void {
  switch (command) {
    case "serve":
      checkMembership(settings);
      break;
    case "cluster":
      if (settings.instances === undefined) {
        throw new UsageError(
          "Cannot start a cluster: wanted --instances N, got none; cluster status shows a running one",
        );
      }
      break;
    case "gmanager":
      if (settings.listen === undefined) {
        throw new UsageError("Cannot start a gManager: wanted --listen HOST:PORT, got none");
      }
      break;
    default:
      return;
  }
  checkTls(settings);
  checkAddresses(settings);
}

/**
 * The options of a member, or undefined for an instance that is in no cluster. Reads the files of the key and of TLS.
 *
 * @throws {TypeError | UsageError} when one of them cannot be used.
 */
export async function clusterOptions(settings: Settings): Promise<ClusterOptions | undefined> {
  const listens = settings.listen ?? settings.clusterListen;
  if (settings.join.length === 0 && listens === undefined) return undefined;
  const { host, port } = endpointOf(listens);
  const advertised = settings.advertise === undefined ? undefined : parseClusterUrl(settings.advertise);
  return {
    name: settings.name,
    role: settings.role,
    join: settings.join.map((url) => url.replace(/\/$/, "")),
    host,
    port,
    advertise: settings.advertise?.replace(/\/$/, ""),
    key: settings.clusterKeyFile === undefined ? undefined : await readClusterKey(settings.clusterKeyFile),
    tls: await readClusterTls(settings, { host: advertised?.host ?? host }),
    memoryPolicy: settings.memoryPolicy,
    memoryPolicyOptions: Object.keys(settings.memoryPolicyOpt).length === 0 ? undefined : settings.memoryPolicyOpt,
    lendShare: settings.lendShare,
    timings: settings.gentleFill === undefined ? undefined : { newcomerMs: settings.gentleFill * 1000 },
  };
}

/** Where people and other members reach a public API that listens on `url`. */
export function publicUrl(url: string, { advertise }: Pick<Settings, "advertise">): string {
  const parts = new URL(url);
  const host = parts.hostname.replace(/^\[(.*)\]$/, "$1");
  if (!isWildcard({ host, port: 0 })) return url;
  const advertised = advertise === undefined ? undefined : parseClusterUrl(advertise);
  const { host: name } = advertised ?? { host: host.includes(":") ? "::1" : "127.0.0.1" };
  const scheme = parts.protocol === "https:" ? "https" : "http";
  return clusterUrl({ scheme, host: name, port: Number(parts.port) });
}

function checkMembership(settings: Settings): void {
  const { role, name } = settings;
  if (!inCluster(settings)) {
    const lonely = role === "holder" ? "--role holder" : clusterOnlyFlag(settings);
    if (lonely === undefined) return;
    throw new UsageError(`Cannot use ${lonely} without a cluster: wanted --join or --cluster-listen besides it`);
  }
  if (name !== undefined && !NAME.test(name)) {
    throw new UsageError(`Cannot use --name: wanted 1 to 64 of a-z 0-9 . _ -, got ${JSON.stringify(name)}`);
  }
  if (role === "holder" && settings.kvTokens !== undefined) {
    throw new UsageError("Cannot size a holder: wanted --kv-memory, got --kv-tokens, which depend on a model");
  }
}

function clusterOnlyFlag(settings: Settings): string | undefined {
  const { name, advertise, clusterKeyFile, memoryPolicy, memoryPolicyOpt, lendShare, gentleFill } = settings;
  if (name !== undefined) return "--name";
  if (advertise !== undefined) return "--advertise";
  if (clusterKeyFile !== undefined) return "--cluster-key-file";
  const [tls] = givenTls(settings);
  if (tls !== undefined) return tls;
  if (memoryPolicy !== undefined) return "--memory-policy";
  if (Object.keys(memoryPolicyOpt).length > 0) return "--memory-policy-opt";
  if (lendShare !== undefined) return "--lend-share";
  return gentleFill === undefined ? undefined : "--gentle-fill";
}

/** Names of the TLS flags that are given. */
function givenTls(settings: ClusterTlsSettings): readonly string[] {
  const given = [
    ["--cluster-tls-cert", settings.clusterTlsCert],
    ["--cluster-tls-key", settings.clusterTlsKey],
    ["--cluster-tls-ca", settings.clusterTlsCa],
  ] as const;
  return given.filter(([, path]) => path !== undefined).map(([flag]) => flag);
}

function checkTls(settings: ClusterTlsSettings): void {
  const given = givenTls(settings);
  if (given.length === 0 || given.length === 3) return;
  throw new UsageError(
    `Cannot link over TLS: wanted --cluster-tls-cert, --cluster-tls-key and --cluster-tls-ca, got only ${
      given.join(" and ")
    }`,
  );
}

function checkAddresses(settings: Settings): void {
  const { join, advertise, clusterKeyFile } = settings;
  const tls = givenTls(settings).length > 0;
  const [flag, listens] = settings.listen === undefined
    ? ["--cluster-listen", settings.clusterListen]
    : ["--listen", settings.listen];
  const endpoint = endpointOf(listens, flag);
  if (isWildcard(endpoint) && advertise === undefined) {
    throw new UsageError(
      `Cannot use ${flag} ${listens} alone: nobody can connect to it, wanted --advertise besides it`,
    );
  }
  const addresses: (readonly [string, Endpoint])[] = [[`${flag} ${listens}`, endpoint]];
  if (advertise !== undefined) addresses.push([`--advertise ${advertise}`, urlOf("--advertise", advertise, { tls })]);
  for (const url of join) addresses.push([`--join ${url}`, urlOf("--join", url, { tls })]);
  if (clusterKeyFile !== undefined || tls) return;
  for (const [given, address] of addresses) {
    if (isLocal(address)) continue;
    throw new UsageError(
      `Cannot use ${given}: beyond this machine members need --cluster-key-file or --cluster-tls-cert`,
    );
  }
}

function endpointOf(text: string | undefined, flag = "the cluster port"): Endpoint {
  if (text === undefined) return ANY_PORT;
  const endpoint = parseEndpoint(text);
  if (endpoint === undefined) {
    throw new UsageError(`Cannot use ${flag}: wanted HOST:PORT, got ${JSON.stringify(text)}`);
  }
  return endpoint;
}

function urlOf(flag: string, text: string, { tls }: { readonly tls: boolean }): Endpoint {
  const url = parseClusterUrl(text);
  const scheme = tls ? "https" : "http";
  if (url?.scheme === scheme) return url;
  const why = url === undefined ? "" : tls ? " with --cluster-tls-cert" : " without --cluster-tls-cert";
  throw new UsageError(`Cannot use ${flag}: wanted ${scheme}://HOST:PORT${why}, got ${JSON.stringify(text)}`);
}
