/**
 * Keeps a failing or talkative plugin from filling the log.
 *
 * @module
 */
import { oneLine } from "./error.ts";

/** Writes at most so many lines per topic and interval, and says how many it left out. */
export class LogLimiter {
  readonly #log: (message: string) => void;
  readonly #now: () => number;
  readonly #intervalMs: number;
  readonly #topics = new Map<string, { sinceMs: number; lines: number; suppressed: number }>();

  /** Makes one; `intervalMs` is 10 s unless given. */
  constructor(
    log: (message: string) => void,
    options: { readonly now: () => number; readonly intervalMs?: number },
  ) {
    this.#log = log;
    this.#now = options.now;
    this.#intervalMs = options.intervalMs ?? 10_000;
  }

  /** Writes `message` as one line unless the topic has had its `lines` (1 by default) of this interval. */
  write(message: string, { topic, lines = 1 }: { readonly topic: string; readonly lines?: number }): void {
    const nowMs = this.#now();
    let entry = this.#topics.get(topic);
    if (entry === undefined) this.#topics.set(topic, entry = { sinceMs: nowMs, lines: 0, suppressed: 0 });
    if (nowMs - entry.sinceMs >= this.#intervalMs) {
      entry.sinceMs = nowMs;
      entry.lines = 0;
    }
    if (entry.lines >= lines) {
      entry.suppressed++;
      return;
    }
    entry.lines++;
    const left = entry.suppressed > 0 ? ` (${entry.suppressed} more like it left out)` : "";
    entry.suppressed = 0;
    this.#log(`${oneLine(message)}${left}`);
  }
}
