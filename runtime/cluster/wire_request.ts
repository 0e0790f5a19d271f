/**
 * Engine requests and events as JSON between a front and a home.
 *
 * @module
 */
import type { EngineRequest, RequestEvent, SamplingParams } from "../engine/request.ts";

/** Most tokens of a request on the wire. */
const MOST_TOKENS = 1 << 24;

/** Names of the events there are. */
const EVENT_KINDS: readonly RequestEvent["kind"][] = ["prompt", "token", "choice-end", "end"];

/** The request as JSON. */
export function encodeRequest(request: EngineRequest): string {
  const { sampling } = request;
  return JSON.stringify({
    ...request,
    prompt: Array.from(request.prompt),
    sampling: sampling === undefined ? undefined : {
      ...sampling,
      logitBias: sampling.logitBias === undefined ? undefined : [...sampling.logitBias],
    },
  });
}

/**
 * The request of {@linkcode encodeRequest}. Ranges are checked by the engine; here only that it is a request at all.
 *
 * @throws {TypeError} when it is not.
 */
export function decodeRequest(json: string): EngineRequest {
  const value: unknown = JSON.parse(json);
  if (!isRecord(value)) throw refusal("an object", value);
  const { id, prompt, maxTokens, sampling, resumed } = value;
  if (typeof id !== "string") throw refusal("a string id", id);
  if (!isTokens(prompt)) throw refusal("a prompt of token ids", prompt);
  if (typeof maxTokens !== "number") throw refusal("a number maxTokens", maxTokens);
  for (const name of ["n", "priority"]) {
    if (value[name] !== undefined && typeof value[name] !== "number") throw refusal(`a number ${name}`, value[name]);
  }
  for (const name of ["cacheSalt", "tenant"]) {
    if (value[name] !== undefined && typeof value[name] !== "string") throw refusal(`a string ${name}`, value[name]);
  }
  if (sampling !== undefined && !isRecord(sampling)) throw refusal("an object sampling", sampling);
  if (resumed !== undefined && !(Array.isArray(resumed) && resumed.every(isTokens))) {
    throw refusal("resumed tokens", resumed);
  }
  return {
    id,
    prompt: Int32Array.from(prompt),
    maxTokens,
    n: numberOf(value.n),
    priority: numberOf(value.priority),
    cacheSalt: stringOf(value.cacheSalt),
    tenant: stringOf(value.tenant),
    sampling: sampling === undefined ? undefined : decodeSampling(sampling),
    resumed,
  };
}

/**
 * The event of one JSON text.
 *
 * @throws {TypeError} when it is none.
 */
export function decodeEvent(json: string): RequestEvent {
  const value: unknown = JSON.parse(json);
  if (!isEvent(value)) throw refusal("an event", value);
  return value;
}

function decodeSampling(sampling: Readonly<Record<string, unknown>>): SamplingParams {
  const { logitBias, ...rest } = sampling;
  if (logitBias === undefined) return rest;
  if (!Array.isArray(logitBias) || !logitBias.every(isPair)) throw refusal("pairs of a logit bias", logitBias);
  return { ...rest, logitBias: new Map(logitBias) };
}

function isEvent(value: unknown): value is RequestEvent {
  if (!isRecord(value) || !EVENT_KINDS.some((kind) => kind === value.kind)) return false;
  switch (value.kind) {
    case "token":
      return typeof value.index === "number" && isTokens(value.ids) && typeof value.text === "string";
    case "choice-end":
      return typeof value.index === "number" && typeof value.reason === "string" && typeof value.text === "string";
    case "end":
      return isRecord(value.usage) && isRecord(value.timing);
    default:
      return Array.isArray(value.logprobs);
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isTokens(value: unknown): value is number[] {
  return Array.isArray(value) && value.length <= MOST_TOKENS && value.every((id) => Number.isInteger(id));
}

function isPair(value: unknown): value is [number, number] {
  return Array.isArray(value) && value.length === 2 && value.every((part) => typeof part === "number");
}

function numberOf(value: unknown): number | undefined {
  return typeof value === "number" ? value : undefined;
}

function stringOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function refusal(wanted: string, got: unknown): TypeError {
  return new TypeError(
    `Cannot take a request from a peer: wanted ${wanted}, got ${got === null ? "null" : typeof got}`,
  );
}
