/**
 * What is checked before a route is looked up: header section, host name, browser origin and API key.
 *
 * @module
 */
import type { IncomingMessage } from "node:http";
import { ApiError } from "./api_error.ts";
import { findKey, type KeyDigest, tenantOf } from "./api_keys.ts";

/**
 * Refuses more than `mostFields` header fields, a missing Host and a repeated one.
 *
 * @throws {ApiError} 431 or 400.
 */
export function checkHeaderSection(incoming: IncomingMessage, mostFields: number): void {
  const names = incoming.rawHeaders.filter((_, index) => index % 2 === 0);
  if (names.length > mostFields) {
    throw new ApiError(`Cannot read the request: wanted at most ${mostFields} header fields, got ${names.length}`, {
      status: 431,
      code: "headers_too_large",
    });
  }
  const hosts = names.filter((name) => name.toLowerCase() === "host").length;
  if (hosts > 1 || (hosts === 0 && incoming.httpVersion === "1.1")) {
    throw new ApiError(`Cannot read the request: wanted one Host header, got ${hosts}`, {
      status: 400,
      code: "invalid_http",
    });
  }
}

/** Whether only this machine can reach a server bound to `hostname`. */
export function isLoopback(hostname: string): boolean {
  const name = hostname.toLowerCase().replace(/^\[(.*)\]$/, "$1");
  return name === "localhost" || name === "::1" || /^127(\.\d{1,3}){3}$/.test(name);
}

/**
 * Refuses host names that are not this machine's, so that a web page cannot reach a loopback server under a name that
 * it made resolve to 127.0.0.1.
 *
 * @throws {ApiError} 403 when `host`, a `Host` header, names another machine.
 */
export function checkLoopbackHost(host: string | undefined): void {
  if (host === undefined) return;
  const name = /^(\[[^\]]*\]|[^:]*)(?::\d+)?$/.exec(host)?.[1];
  if (name === undefined || !isLoopback(name)) {
    throw new ApiError("Cannot serve this host name: the server is bound to loopback", {
      status: 403,
      code: "host_not_allowed",
    });
  }
}

/**
 * Owner of the key in an `Authorization` header. Absent, malformed and unknown keys get the same answer.
 *
 * @throws {ApiError} 401 when the header holds none of `keys`.
 */
export function authenticate(keys: readonly KeyDigest[], authorization: string | undefined): string {
  const key = /^Bearer +(\S+) *$/i.exec(authorization ?? "")?.[1] ?? "";
  const found = findKey(keys, key);
  if (found === undefined) {
    throw new ApiError("Cannot serve the request: wanted a valid API key as Authorization: Bearer", {
      status: 401,
      code: "invalid_api_key",
      headers: { "www-authenticate": "Bearer" },
    });
  }
  return tenantOf(found);
}

/** Which browser origins may read answers. */
export class CorsPolicy {
  readonly #origins: ReadonlySet<string>;

  /** Allows `origins`, each like `https://app.example`; `*` allows all. */
  constructor(origins: readonly string[]) {
    this.#origins = new Set(origins);
  }

  /** Headers that let `origin` read an answer; empty when it may not. */
  headers(origin: string | undefined): Readonly<Record<string, string>> {
    if (this.#origins.size === 0) return {};
    if (origin === undefined || !this.#allows(origin)) return { vary: "Origin" };
    return {
      "access-control-allow-origin": origin,
      "access-control-expose-headers": "x-request-id, retry-after",
      vary: "Origin",
    };
  }

  /**
   * Answer to a preflight request.
   *
   * @throws {ApiError} 403 when the origin is not allowed.
   */
  preflight(origin: string): Response {
    if (!this.#allows(origin)) {
      throw new ApiError("Cannot serve this origin: it is not among the allowed ones", {
        status: 403,
        code: "origin_not_allowed",
      });
    }
    return new Response(null, {
      status: 204,
      headers: {
        "access-control-allow-methods": "GET, POST",
        "access-control-allow-headers": "authorization, content-type, x-request-id",
        "access-control-max-age": "600",
      },
    });
  }

  #allows(origin: string): boolean {
    return this.#origins.has(origin) || this.#origins.has("*");
  }
}
