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

/** What a source came to when it was pulled. */
type Pulled =
  | { readonly source: number; readonly result: IteratorResult<RequestEvent> }
  | { readonly source: number; readonly error: unknown };

/** Pulls one event at a time from each source: when nobody calls {@linkcode next}, nothing is pulled. */
export class EventFeed {
  readonly #sources: readonly AsyncIterator<RequestEvent>[];
  readonly #open: Set<number>;
  /** Sources that were pulled and of which nothing was taken since. */
  readonly #asked = new Set<number>();
  readonly #ready: Pulled[] = [];
  #wake: ((reason?: "idle") => void) | undefined;
  /** Fires when there may have been no event for a while: one timer for many events. */
  #timer: ReturnType<typeof setTimeout> | undefined;
  #idleAtMs = Infinity;
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
    const idle = await this.#wait(waitMs) === "idle";
    this.#stopTimer();
    const first = this.#ready[0];
    if (idle || first === undefined) return undefined;
    if ("error" in first) throw first.error;
    return first.result.done ? undefined : { source: first.source, event: first.result.value };
  }

  /**
   * The next event; `idle` after `waitMs` without one, undefined when all sources ended.
   *
   * @throws what a source throws.
   */
  async next(waitMs: number = Infinity): Promise<FeedItem | "idle" | undefined> {
    for (;;) {
      if (await this.#wait(waitMs) === "idle") return "idle";
      const pulled = this.#ready.shift();
      if (pulled === undefined) {
        this.#stopTimer();
        return undefined;
      }
      const { source } = pulled;
      this.#asked.delete(source);
      if ("error" in pulled) {
        this.#stopTimer();
        throw pulled.error;
      }
      if (!pulled.result.done) return { source, event: pulled.result.value };
      this.#open.delete(source);
    }
  }

  /** Whether {@linkcode close} was called. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Ends all sources; whoever waits for an event gets undefined. */
  close(): void {
    this.#closed = true;
    this.#stopTimer();
    for (const source of this.#open) void this.#sources[source].return?.().catch(() => {});
    this.#open.clear();
    this.#ready.length = 0;
    this.#wake?.();
  }

  /** Waits until something was pulled, everything has ended, or nothing came for a while. */
  #wait(waitMs: number): Promise<"idle" | undefined> | undefined {
    for (const source of this.#open) this.#pull(source);
    if (this.#closed || this.#asked.size === 0 || this.#ready.length > 0) return undefined;
    if (waitMs < Infinity) {
      this.#idleAtMs = performance.now() + waitMs;
      if (this.#timer === undefined) this.#startTimer(waitMs);
    }
    return new Promise((resolve) => {
      this.#wake = (reason) => {
        this.#wake = undefined;
        resolve(reason);
      };
    });
  }

  #pull(source: number): void {
    if (this.#asked.has(source)) return;
    this.#asked.add(source);
    const take = (pulled: Pulled) => {
      if (this.#closed) return;
      this.#ready.push(pulled);
      this.#wake?.();
    };
    this.#sources[source].next().then((result) => take({ source, result }), (error) => take({ source, error }));
  }

  #startTimer(ms: number): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      if (this.#wake === undefined) return;
      const leftMs = this.#idleAtMs - performance.now();
      if (leftMs > 0) this.#startTimer(leftMs);
      else this.#wake("idle");
    }, ms);
  }

  #stopTimer(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
