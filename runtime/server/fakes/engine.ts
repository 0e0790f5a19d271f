/**
 * An engine for tests that says what it is told to.
 *
 * @module
 */
import type { ClusterControl } from "../../cluster/report.ts";
import type {
  EngineHandle,
  EngineInfo,
  EngineRequest,
  EngineStats,
  RequestEvent,
  TokenLogprob,
  Usage,
} from "../../engine/request.ts";
import { FAKE_VOCABULARY } from "./text.ts";

/** What {@linkcode FakeEngine} may be told. */
export interface FakeEngineOptions {
  /** Facts that differ from the defaults. */
  readonly info?: Partial<EngineInfo>;
  /** Text of every choice, one token a byte. @default {"Hello"} */
  readonly reply?: string;
  /** Milliseconds before each token. @default {0} */
  readonly delayMs?: number;
  /** Cluster that it is in. */
  readonly cluster?: ClusterControl;
  /** Replaces everything else. */
  readonly behave?: (request: EngineRequest, signal: AbortSignal) => AsyncIterable<RequestEvent>;
}

const IDLE: EngineStats = {
  waiting: 0,
  running: 0,
  blocks: { total: 10, free: 7, owned: 2, cached: 1, lent: 0, quarantined: 0, borrowed: 0 },
  blockTokens: 16,
  steps: 3,
  promptTokens: 5,
  generatedTokens: 7,
  prefixQueries: 11,
  prefixHits: 4,
  preemptions: 1,
  repairs: 0,
  repairedTokens: 0,
  lostSteps: 0,
  policyFallbacks: { plan: 2 },
  lastTokenMs: 0,
  stepSeconds: 0.5,
};

/** Says its reply to every request and remembers what it was asked. */
export class FakeEngine implements EngineHandle {
  readonly info: EngineInfo;
  readonly cluster?: ClusterControl;
  /** Requests in the order they came. */
  readonly requests: EngineRequest[] = [];
  /** Ids of requests whose iteration has begun and not ended. */
  readonly live: Set<string> = new Set();
  /** Events handed out. */
  pulled = 0;
  /** What {@linkcode stats} answers. */
  state: EngineStats = IDLE;
  readonly #options: FakeEngineOptions;

  constructor(options: FakeEngineOptions = {}) {
    this.#options = options;
    this.cluster = options.cluster;
    this.info = {
      model: "fake",
      digest: "0123456789abcdef",
      maxModelLen: 200,
      vocab: FAKE_VOCABULARY,
      device: "fake",
      weightBytes: 1,
      kvBytes: 2,
      kvTokens: 160,
      scheduler: "fcfs",
      ...options.info,
    };
  }

  async *generate(
    request: EngineRequest,
    options: { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<RequestEvent> {
    const signal = options.signal ?? new AbortController().signal;
    this.requests.push(request);
    this.live.add(request.id);
    try {
      for await (const event of this.#options.behave?.(request, signal) ?? this.#reply(request, signal)) {
        this.pulled++;
        yield event;
      }
    } finally {
      this.live.delete(request.id);
    }
  }

  stats(): Promise<EngineStats> {
    return Promise.resolve(this.state);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }

  async *#reply(request: EngineRequest, signal: AbortSignal): AsyncGenerator<RequestEvent> {
    const { sampling = {}, n = 1, maxTokens, prompt } = request;
    const bytes = Array.from(new TextEncoder().encode(this.#options.reply ?? "Hello"));
    if (sampling.promptLogprobs !== undefined) {
      const most = sampling.promptLogprobs;
      yield { kind: "prompt", logprobs: Array.from(prompt, (id, at) => at === 0 ? null : logprobOf(id, most)) };
    }
    const said = bytes.slice(0, maxTokens);
    for (const id of said) {
      for (let index = 0; index < n; index++) {
        await pause(this.#options.delayMs ?? 0, signal);
        yield token(index, [id], sampling.logprobs);
      }
    }
    for (let index = 0; index < n; index++) {
      yield { kind: "choice-end", index, reason: said.length < bytes.length ? "length" : "stop", text: "" };
    }
    yield end({ promptTokens: prompt.length, cachedTokens: 1, completionTokens: said.length * n });
  }
}

/** A token event; each id is a byte of ASCII text. */
export function token(index: number, ids: readonly number[], logprobs?: number): RequestEvent {
  const event = { kind: "token", index, ids, text: String.fromCharCode(...ids) } as const;
  return logprobs === undefined ? event : { ...event, logprobs: ids.map((id) => logprobOf(id, logprobs)) };
}

/** The last event of a request. */
export function end(usage: Partial<Usage> = {}): Extract<RequestEvent, { kind: "end" }> {
  return {
    kind: "end",
    usage: { promptTokens: 1, cachedTokens: 0, completionTokens: 0, ...usage },
    timing: { queuedMs: 1, prefillMs: 2, decodeMs: 3 },
  };
}

/** Log-probability −0.5 for `id`, with `most` rivals of which it is the first. */
export function logprobOf(id: number, most: number): TokenLogprob {
  const top = Array.from({ length: most }, (_, place) => ({ id: (id + place) % 256, logprob: -0.5 - place }));
  return { id, logprob: -0.5, rank: 1, top };
}

/** Waits; ends early by throwing when aborted. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  if (ms === 0) return;
  await new Promise<void>((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal.addEventListener("abort", stop, { once: true });
  });
}
