/**
 * Asks a running member about its cluster and gives it commands.
 *
 * @module
 */
import { request as requestHttp } from "node:http";
import { request as requestHttps } from "node:https";
import type { ClusterCommand, ClusterReport } from "../cluster/report.ts";
import { clusterReport, operatedBody } from "../server/cluster_schema.ts";
import { UsageError } from "./usage_error.ts";

const MAX_BYTES = 64 * 2 ** 20;
const REPORT_MS = 10_000;
/** A command may copy memory before it answers. */
const COMMAND_MS = 120_000;

/** Where and how to ask. */
export interface OperatorClientOptions {
  /** Public address of a member: `http://HOST:PORT`, also https. */
  readonly url: string;
  /** API key. */
  readonly key?: string;
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

/** Talks to one member, over `node:http`, which asks no proxy on the way to it. */
export class OperatorClient {
  readonly #url: URL;
  readonly #key: string | undefined;

  /** Makes one. @throws {UsageError} when the address is none. */
  constructor({ url, key }: OperatorClientOptions) {
    const parsed = URL.parse(url);
    const plain = parsed !== null && parsed.pathname === "/" && parsed.search === "" && parsed.hash === "" &&
      parsed.username === "" && parsed.password === "" && /^https?:$/.test(parsed.protocol);
    if (!plain) {
      // An address may hold a password.
      throw new UsageError("Cannot use --url: wanted http://HOST:PORT or https://HOST:PORT, got something else");
    }
    this.#url = parsed;
    this.#key = key;
  }

  /**
   * The cluster as the member knows it.
   *
   * @throws {Error} when the member is not reached, refuses or answers something else.
   */
  async report(): Promise<ClusterReport> {
    const body = this.#success(await this.#ask("GET", "/cluster"));
    const read = clusterReport.safeParse(body);
    if (!read.success) throw this.#strange(read.error.issues[0]?.path.join("."));
    return read.data;
  }

  /**
   * Carries a command out. Gives what was done.
   *
   * @throws {Error} when the member is not reached or refuses, in its own words.
   */
  async operate({ kind, ...fields }: ClusterCommand): Promise<string> {
    const body = this.#success(await this.#ask("POST", `/cluster/${kind}`, JSON.stringify(fields)));
    const read = operatedBody.safeParse(body);
    if (!read.success) throw this.#strange("message");
    return read.data.message;
  }

  #success({ status, text }: Answer): unknown {
    let body: { readonly error?: { readonly message?: unknown } } | null = null;
    try {
      body = JSON.parse(text);
    } catch {
      // Told below.
    }
    if (status === 200 && body !== null) return body;
    const message = body?.error?.message;
    if (typeof message !== "string") throw this.#strange(`status ${status}`);
    throw new Error(status === 401 ? `${message}; give the key with --api-key-file` : message);
  }

  #strange(what: string | undefined): Error {
    return new Error(`Cannot use the answer of ${this.#url.origin}: wanted that of a member, got another (${what})`);
  }

  #ask(method: "GET" | "POST", path: string, body?: string): Promise<Answer> {
    const url = new URL(path, this.#url);
    const send = url.protocol === "https:" ? requestHttps : requestHttp;
    const timeoutMs = method === "GET" ? REPORT_MS : COMMAND_MS;
    return new Promise((resolve, reject) => {
      const fail = (reason: string, cause?: unknown) =>
        reject(new Error(`Cannot reach ${url.origin}: ${reason}`, { cause }));
      const outgoing = send(url, {
        method,
        agent: false,
        signal: AbortSignal.timeout(timeoutMs),
        headers: {
          ...body === undefined
            ? {}
            : { "content-type": "application/json", "content-length": new TextEncoder().encode(body).length },
          ...this.#key === undefined ? {} : { authorization: `Bearer ${this.#key}` },
        },
      }, (incoming) => {
        const decoder = new TextDecoder();
        let text = "";
        let length = 0;
        incoming.on("data", (chunk: Uint8Array) => {
          length += chunk.length;
          if (length > MAX_BYTES) outgoing.destroy(new Error(`the answer is longer than ${MAX_BYTES} bytes`));
          else text += decoder.decode(chunk, { stream: true });
        });
        incoming.on("end", () => resolve({ status: incoming.statusCode ?? 0, text }));
        incoming.on("error", (error) => fail(error.message, error));
      });
      outgoing.on("error", (error) => {
        const code = "code" in error && typeof error.code === "string" ? error.code : undefined;
        fail(error.name === "AbortError" ? `no answer within ${timeoutMs / 1000} s` : code ?? error.message, error);
      });
      outgoing.end(body);
    });
  }
}
