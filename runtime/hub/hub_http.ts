/**
 * Requests to a model hub. Deno's `fetch` honours `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`.
 *
 * @module
 */

/** Which hub, and who asks. */
export interface HubAccess {
  /** Base URL without a slash at the end, for example `https://huggingface.co`. */
  readonly endpoint: string;
  /** Access token; goes to the endpoint's own origin only. */
  readonly token?: string;
}

/** Time without a byte after which a request is given up, ms. */
export const STALL_MS = 30_000;

const MAX_REDIRECTS = 5;
const MAX_JSON_BYTES = 16 * 2 ** 20;

/** The connection failed or broke off; trying again may help. */
export class InterruptedError extends Error {
  /** Error name. */
  override readonly name = "InterruptedError";
}

/** Headers to send, and how to give up. */
export interface HubRequest {
  /** Request headers besides authorization. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Ends the request. */
  readonly signal?: AbortSignal;
  /** What the request is for, in messages. */
  readonly what: string;
}

/**
 * GETs `url` and follows redirects. The token never leaves the endpoint's origin, and no redirect leads from HTTPS to HTTP.
 *
 * @throws {InterruptedError} when the connection fails or the server answers 429 or 5xx.
 * @throws {Error} when the server refuses.
 */
export async function hubGet(access: HubAccess, url: string, request: HubRequest): Promise<Response> {
  const home = new URL(access.endpoint).origin;
  let target = new URL(url);
  for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
    const headers = new Headers(request.headers);
    if (access.token !== undefined && target.origin === home) headers.set("authorization", `Bearer ${access.token}`);
    const response = await connect(target, { headers, signal: request.signal, what: request.what });
    const location = response.headers.get("location");
    if (response.status < 300 || response.status >= 400 || location === null) {
      if (response.ok || response.status === 416) return response;
      await response.body?.cancel();
      throw refusal(response.status, { ...request, token: access.token, host: target.host });
    }
    await response.body?.cancel();
    const next = new URL(location, target);
    if (target.protocol === "https:" && next.protocol !== "https:") {
      throw new Error(`Cannot fetch ${request.what}: ${target.host} redirects to ${next.protocol}//, wanted https://`);
    }
    target = next;
  }
  throw new Error(`Cannot fetch ${request.what}: wanted at most ${MAX_REDIRECTS} redirects, got more`);
}

/**
 * GETs a JSON document and the address of its next page.
 *
 * @throws {Error} as {@linkcode hubGet} does, and when the answer is no JSON or too long.
 */
export async function hubGetJson(
  access: HubAccess,
  url: string,
  { what }: { readonly what: string },
): Promise<{ readonly value: unknown; readonly next?: string }> {
  const response = await hubGet(access, url, { what, signal: AbortSignal.timeout(STALL_MS) });
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > MAX_JSON_BYTES) {
      throw new Error(`Cannot fetch ${what}: its description is over ${MAX_JSON_BYTES} bytes`);
    }
    chunks.push(chunk);
  }
  let value: unknown;
  try {
    value = JSON.parse(await new Blob(chunks as Uint8Array<ArrayBuffer>[]).text());
  } catch (cause) {
    throw new Error(`Cannot fetch ${what}: wanted JSON from ${new URL(url).host}, got something else`, { cause });
  }
  const next = /<([^>]+)>\s*;\s*rel="next"/.exec(response.headers.get("link") ?? "")?.[1];
  return { value, next };
}

async function connect(
  target: URL,
  { headers, signal, what }: { readonly headers: Headers; readonly signal?: AbortSignal; readonly what: string },
): Promise<Response> {
  try {
    return await fetch(target, { headers, signal, redirect: "manual" });
  } catch (cause) {
    if (cause instanceof Deno.errors.NotCapable) throw cause;
    throw new InterruptedError(`Cannot fetch ${what}: no answer from ${target.host} (${rootReason(cause)})`, { cause });
  }
}

/** The last sentence of a network error, which names what the system said. */
export function rootReason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const parts = error.message.split(/: /);
  return parts[parts.length - 1].replace(/ \(os error \d+\)$/, "");
}

function refusal(
  status: number,
  { what, token, host }: { readonly what: string; readonly token?: string; readonly host: string },
): Error {
  if (status === 429 || status >= 500) return new InterruptedError(`Cannot fetch ${what}: ${host} answers ${status}`);
  return new Error(`Cannot fetch ${what}: ${reasonFor(status, { token, host })}`);
}

function reasonFor(status: number, { token, host }: { readonly token?: string; readonly host: string }): string {
  switch (status) {
    case 401:
      return token === undefined
        ? `${host} answers 401, it does not exist or wants a token: set HF_TOKEN`
        : `${host} answers 401, it does not take the token in HF_TOKEN`;
    case 403:
      return `${host} answers 403, access has to be asked for on the model's page`;
    case 404:
      return `${host} answers 404, there is no such model or file`;
    default:
      return `${host} answers ${status}`;
  }
}
