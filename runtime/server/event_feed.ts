/**
 * Events of several engine requests as one pulled sequence.
 *
 * @module
 */
import type { RequestEvent } from "../engine/request.ts";

/** An event and the request it belongs to. */
export interface FeedItem {
  /** Place of the request among the sources. */
  readonly source: number;
  /** The event. */
  readonly event: RequestEvent;
}

interface Settled {
  readonly source: number;
  readonly result: IteratorResult<RequestEvent>;
}

/** Pulls one event at a time from each source: when nobody calls {@linkcode next}, nothing is pulled. */
export class EventFeed {
  readonly #sources: readonly AsyncIterator<RequestEvent>[];
  readonly #open: Set<number>;
  readonly #pending = new Map<number, Promise<Settled>>();
  #peeked: Settled | undefined;
  #wake: ((reason: "idle" | undefined) => void) | undefined;
  #closed = false;

  /** Reads `sources`; none of them is started yet. */
  constructor(sources: readonly AsyncIterator<RequestEvent>[]) {
    this.#sources = sources;
    this.#open = new Set(sources.keys());
  }

  /**
   * Starts the sources and waits for the first event, at most `waitMs`.
   *
   * @throws what a source throws before that.
   */
  async settle(waitMs: number): Promise<FeedItem | undefined> {
    const settled = await this.#wait(waitMs);
    if (settled === "idle" || settled === undefined) return undefined;
    this.#peeked = settled;
    return settled.result.done ? undefined : { source: settled.source, event: settled.result.value };
  }

  /**
   * The next event; `idle` after `waitMs` without one, undefined when all sources ended.
   *
   * @throws what a source throws.
   */
  async next(waitMs?: number): Promise<FeedItem | "idle" | undefined> {
    for (;;) {
      const settled = this.#peeked ?? await this.#wait(waitMs);
      this.#peeked = undefined;
      if (settled === undefined || settled === "idle") return settled;
      this.#pending.delete(settled.source);
      if (!settled.result.done) return { source: settled.source, event: settled.result.value };
      this.#open.delete(settled.source);
    }
  }

  /** Whether {@linkcode close} was called. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Ends all sources; whoever waits for an event gets undefined. */
  close(): void {
    this.#closed = true;
    for (const source of this.#open) void this.#sources[source].return?.().catch(() => {});
    this.#open.clear();
    this.#wake?.(undefined);
  }

  async #wait(waitMs?: number): Promise<Settled | "idle" | undefined> {
    for (const source of this.#open) this.#pull(source);
    if (this.#closed || this.#pending.size === 0) return undefined;
    const { promise: woken, resolve } = Promise.withResolvers<"idle" | undefined>();
    this.#wake = resolve;
    const timer = waitMs === undefined ? undefined : setTimeout(resolve, waitMs, "idle");
    try {
      return await Promise.race([...this.#pending.values(), woken]);
    } finally {
      clearTimeout(timer);
    }
  }

  #pull(source: number): void {
    if (this.#pending.has(source)) return;
    const pulled = this.#sources[source].next().then((result) => ({ source, result }));
    // It may reject after the feed was closed, when nobody waits for it any more.
    pulled.catch(() => {});
    this.#pending.set(source, pulled);
  }
}
