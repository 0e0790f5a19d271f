/**
 * The events of one request between the engine and whoever reads them.
 *
 * @module
 */
import type { RequestFailure } from "./live_request.ts";
import type { EngineRequest, RequestEvent, TokenLogprob } from "./request.ts";

/** Tokens that may wait for the reader of one request; beyond that the request ends with an error. */
export const MAX_UNREAD_TOKENS = 16_384;

/** Time that events may wait for the reader of one request, ms; after that the next event ends it with an error. */
export const MAX_UNREAD_MS = 30_000;

/** What a stream needs of its engine. */
export interface StreamSource {
  /** Starts the request, when the iteration begins. What it throws goes to the reader. */
  readonly start: () => void;
  /** Asks the engine to end the request. */
  readonly cancel: () => void;
  /** The stream takes no more events. */
  readonly close: () => void;
  /** Monotonic clock, ms. */
  readonly now: () => number;
  /** Cancels the request. */
  readonly signal?: AbortSignal;
}

interface Reader {
  readonly resolve: (result: IteratorResult<RequestEvent, undefined>) => void;
  readonly reject: (error: unknown) => void;
}

/** A token event in the queue, to which later ones are joined. */
interface UnreadTokens {
  readonly kind: "token";
  readonly index: number;
  readonly ids: number[];
  text: string;
  readonly logprobs?: TokenLogprob[];
}

/**
 * An iteration over the events of a request that starts with the first {@linkcode Symbol.asyncIterator}, may happen
 * once, and cancels the request when it is given up.
 *
 * Backpressure: unread tokens are joined into one event. A reader that leaves more than {@linkcode MAX_UNREAD_TOKENS}
 * unread, or anything for {@linkcode MAX_UNREAD_MS}, loses the request: it is cancelled and ends with the error
 * `slow_reader`, so that nobody's KV and memory wait for a stalled client.
 */
export class RequestStream implements AsyncIterable<RequestEvent>, AsyncIterator<RequestEvent, undefined> {
  readonly #source: StreamSource;
  readonly #promptTokens: number;
  readonly #openChoices: Set<number>;
  readonly #queue: (RequestEvent | UnreadTokens)[] = [];
  readonly #readers: Reader[] = [];
  readonly #onAbort = () => this.#source.cancel();
  #state: "new" | "open" | "closed" = "new";
  #failure: { readonly error: unknown } | undefined;
  #unreadTokens = 0;
  #completionTokens: number;
  #readMs = 0;
  #startMs = 0;
  #firstTokenMs: number | undefined;

  /** Makes a stream that has not started. */
  constructor(request: EngineRequest, source: StreamSource) {
    this.#source = source;
    this.#promptTokens = request.prompt.length;
    this.#completionTokens = request.resumed?.reduce((sum, ids) => sum + ids.length, 0) ?? 0;
    this.#openChoices = new Set(Array.from({ length: request.n ?? 1 }, (_, index) => index));
  }

  /** Starts the request. @throws {TypeError} when it was started before. */
  [Symbol.asyncIterator](): this {
    if (this.#state !== "new") throw new TypeError("Cannot iterate over a request's events: wanted once, got again");
    const { signal } = this.#source;
    this.#state = "open";
    this.#startMs = this.#readMs = this.#source.now();
    if (signal?.aborted) {
      this.fail(signal.reason);
      return this;
    }
    signal?.addEventListener("abort", this.#onAbort);
    try {
      this.#source.start();
    } catch (error) {
      this.fail(error);
    }
    return this;
  }

  /** The next event. Rejects once with what the request failed on at the door. */
  next(): Promise<IteratorResult<RequestEvent, undefined>> {
    this.#readMs = this.#source.now();
    if (this.#queue.length > 0) return Promise.resolve({ done: false, value: this.#dequeue() });
    if (this.#failure !== undefined) {
      const { error } = this.#failure;
      this.#failure = undefined;
      return Promise.reject(error);
    }
    if (this.#state === "closed") return Promise.resolve({ done: true, value: undefined });
    const { promise, resolve, reject } = Promise.withResolvers<IteratorResult<RequestEvent, undefined>>();
    this.#readers.push({ resolve, reject });
    return promise;
  }

  /** Gives the iteration up, also while a {@linkcode next} is pending; cancels the request unless it has ended. */
  return(): Promise<IteratorResult<RequestEvent, undefined>> {
    if (this.#state === "open") this.#source.cancel();
    this.#queue.length = 0;
    this.#failure = undefined;
    this.#close();
    return Promise.resolve({ done: true, value: undefined });
  }

  /** Takes events from the engine, in order; tokens that come together are joined. */
  push(...events: readonly RequestEvent[]): void {
    if (this.#state !== "open") return;
    for (const event of events) {
      if (event.kind === "token") {
        this.#firstTokenMs ??= this.#source.now();
        this.#completionTokens += event.ids.length;
      }
      if (event.kind === "choice-end") this.#openChoices.delete(event.index);
    }
    this.#deliver(events);
    if (events.some(({ kind }) => kind === "end")) this.#close();
    else if (this.#tooSlow()) this.#dropReader();
  }

  /** Ends the request with an error event, where the engine cannot do so any more. */
  abort(error: RequestFailure): void {
    if (this.#state !== "open") return;
    const nowMs = this.#source.now();
    const firstTokenMs = this.#firstTokenMs ?? nowMs;
    this.#deliver([
      ...[...this.#openChoices].map((index) => ({ kind: "choice-end", index, reason: "error", text: "" } as const)),
      {
        kind: "end",
        usage: { promptTokens: this.#promptTokens, cachedTokens: 0, completionTokens: this.#completionTokens },
        error,
        timing: { queuedMs: 0, prefillMs: firstTokenMs - this.#startMs, decodeMs: nowMs - firstTokenMs },
      },
    ]);
    this.#close();
  }

  /** Makes the iteration throw `error`: the request never ran. */
  fail(error: unknown): void {
    if (this.#state !== "open") return;
    const reader = this.#readers.shift();
    if (reader === undefined) this.#failure = { error };
    else reader.reject(error);
    this.#close();
  }

  #deliver(events: readonly RequestEvent[]): void {
    // Joined first: a reader that waits gets all tokens that are there as one event.
    for (const event of events) this.#enqueue(event);
    while (this.#queue.length > 0) {
      const reader = this.#readers.shift();
      if (reader === undefined) return;
      this.#readMs = this.#source.now();
      reader.resolve({ done: false, value: this.#dequeue() });
    }
  }

  /** The first event of the queue, which holds one. */
  #dequeue(): RequestEvent {
    const [event] = this.#queue.splice(0, 1);
    if (event.kind === "token") this.#unreadTokens -= event.ids.length;
    return event;
  }

  #enqueue(event: RequestEvent): void {
    if (event.kind !== "token") {
      this.#queue.push(event);
      return;
    }
    this.#unreadTokens += event.ids.length;
    const last = this.#queue.at(-1);
    if (last !== undefined && isUnread(last) && last.index === event.index) {
      last.ids.push(...event.ids);
      last.text += event.text;
      last.logprobs?.push(...event.logprobs ?? []);
      return;
    }
    const { kind, index, ids, text, logprobs } = event;
    this.#queue.push({ kind, index, ids: [...ids], text, ...(logprobs && { logprobs: [...logprobs] }) });
  }

  #tooSlow(): boolean {
    if (this.#queue.length === 0) return false;
    return this.#unreadTokens > MAX_UNREAD_TOKENS || this.#source.now() - this.#readMs > MAX_UNREAD_MS;
  }

  #dropReader(): void {
    const seconds = Math.round((this.#source.now() - this.#readMs) / 1000);
    this.abort({
      message: `Cannot go on with the request: ${this.#unreadTokens} tokens were left unread, for ${seconds} s`,
      code: "slow_reader",
      status: 408,
    });
    this.#source.cancel();
  }

  #close(): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#source.signal?.removeEventListener("abort", this.#onAbort);
    for (const { resolve } of this.#readers.splice(0)) resolve({ done: true, value: undefined });
    this.#source.close();
  }
}

/** Token events in the queue are the stream's own copies. */
function isUnread(event: RequestEvent | UnreadTokens): event is UnreadTokens {
  return event.kind === "token";
}
