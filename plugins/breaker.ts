/**
 * Takes a failing plugin out of service for a while.
 *
 * @module
 */

/** When a breaker opens and closes. */
export interface BreakerOptions {
  /** Faults within the window that open it. @default {5} */
  readonly faults?: number;
  /** Window, ms; also the time without a fault after which a retry counts as a success. @default {60000} */
  readonly windowMs?: number;
  /** Time until the first retry, ms; doubles with each failed one. @default {5000} */
  readonly backOffMs?: number;
  /** Longest time until a retry, ms. @default {300000} */
  readonly maxBackOffMs?: number;
}

/** A circuit breaker: closed (in service), open (out of service), then on probation, where one fault opens it again. */
export class CircuitBreaker {
  readonly #options: Required<BreakerOptions>;
  #faultsMs: number[] = [];
  #backOffMs: number;
  #state: "closed" | "probation" | { readonly openUntilMs: number } = "closed";
  #probationMs = 0;

  /** Makes a closed breaker. */
  constructor(options: BreakerOptions = {}) {
    this.#options = { faults: 5, windowMs: 60_000, backOffMs: 5_000, maxBackOffMs: 300_000, ...options };
    this.#backOffMs = this.#options.backOffMs;
  }

  /** Whether to use the plugin: yes, no, or yes after starting it anew, which begins a probation. */
  check(nowMs: number): "use" | "restart" | "skip" {
    if (typeof this.#state === "object") {
      if (nowMs < this.#state.openUntilMs) return "skip";
      this.#state = "probation";
      this.#probationMs = nowMs;
      return "restart";
    }
    if (this.#state === "probation" && nowMs - this.#probationMs >= this.#options.windowMs) {
      this.#state = "closed";
      this.#backOffMs = this.#options.backOffMs;
    }
    return "use";
  }

  /** Books a fault. @returns the time until the retry, ms, when it opens the breaker. */
  fault(nowMs: number): number | undefined {
    this.#faultsMs = [...this.#faultsMs.filter((ms) => nowMs - ms < this.#options.windowMs), nowMs];
    if (this.#state === "closed" && this.#faultsMs.length < this.#options.faults) return undefined;
    const backOffMs = this.#backOffMs;
    this.#state = { openUntilMs: nowMs + backOffMs };
    this.#faultsMs = [];
    this.#backOffMs = Math.min(backOffMs * 2, this.#options.maxBackOffMs);
    return backOffMs;
  }
}
