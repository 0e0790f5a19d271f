/**
 * Addresses of cluster ports as flags give them.
 *
 * @module
 */
import { isLoopback } from "../server/guards.ts";

/** A host and a port. */
export interface Endpoint {
  /** Host, without brackets. */
  readonly host: string;
  /** Port, 0 to 65535. */
  readonly port: number;
}

/** Where a cluster port is reached: `https` over TLS, else `http`. */
export interface ClusterUrl extends Endpoint {
  /** Scheme. */
  readonly scheme: "http" | "https";
}

const ENDPOINT = /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})$/;

/** Reads `HOST:PORT`, with an IPv6 host in brackets; undefined when the text is something else. */
export function parseEndpoint(text: string): Endpoint | undefined {
  const [, host, digits] = ENDPOINT.exec(text) ?? [];
  const port = Number(digits);
  return host === undefined || port > 65_535 ? undefined : { host: host.replace(/^\[(.*)\]$/, "$1"), port };
}

/** Reads `http://HOST:PORT` or `https://HOST:PORT`; undefined when the text is something else. */
export function parseClusterUrl(text: string): ClusterUrl | undefined {
  const [, secure, rest = ""] = /^http(s?):\/\/([^/]+)\/?$/.exec(text) ?? [];
  const endpoint = parseEndpoint(rest);
  if (endpoint === undefined || endpoint.port === 0) return undefined;
  return { scheme: secure === "s" ? "https" : "http", ...endpoint };
}

/** Writes `http://HOST:PORT` or `https://HOST:PORT`. */
export function clusterUrl({ scheme, host, port }: ClusterUrl): string {
  return `${scheme}://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

/** Whether only this machine can reach a host. */
export function isLocal({ host }: Endpoint): boolean {
  return isLoopback(host);
}

/** Whether a host stands for all addresses of a machine, so that nobody can connect to it by that name. */
export function isWildcard({ host }: Endpoint): boolean {
  return host === "0.0.0.0" || /^[0:]+$/.test(host);
}
