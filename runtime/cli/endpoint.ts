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

const ENDPOINT = /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})$/;

/** Reads `HOST:PORT`, with an IPv6 host in brackets; undefined when the text is something else. */
export function parseEndpoint(text: string): Endpoint | undefined {
  const [, host, digits] = ENDPOINT.exec(text) ?? [];
  const port = Number(digits);
  return host === undefined || port > 65_535 ? undefined : { host: host.replace(/^\[(.*)\]$/, "$1"), port };
}

/** Reads `http://HOST:PORT`; undefined when the text is something else. */
export function parseClusterUrl(text: string): Endpoint | undefined {
  const endpoint = parseEndpoint(/^http:\/\/([^/]+)\/?$/.exec(text)?.[1] ?? "");
  return endpoint?.port === 0 ? undefined : endpoint;
}

/** Writes `http://HOST:PORT`. */
export function clusterUrl({ host, port }: Endpoint): string {
  return `http://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

/** Whether only this machine can reach a host. */
export function isLocal({ host }: Endpoint): boolean {
  return isLoopback(host);
}

/** Whether a host stands for all addresses of a machine, so that nobody can connect to it by that name. */
export function isWildcard({ host }: Endpoint): boolean {
  return host === "0.0.0.0" || /^[0:]+$/.test(host);
}
