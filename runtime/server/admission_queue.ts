/**
 * The bound on requests that wait for their first token.
 *
 * @module
 */
import { ApiError } from "./api_error.ts";

/** One place in the queue; leaving twice is harmless. */
export interface QueuePlace {
  /** Frees the place. */
  leave(): void;
}

/** Counts requests without a token yet and turns further ones away. */
export class AdmissionQueue {
  readonly #capacity: number;
  #taken = 0;

  /** Makes one with `capacity` places. */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** Places taken. */
  get length(): number {
    return this.#taken;
  }

  /**
   * Takes `count` places, all or none.
   *
   * @throws {ApiError} 429 with `Retry-After` when there are fewer.
   */
  enter(count: number): QueuePlace[] {
    if (this.#taken + count > this.#capacity) {
      throw new ApiError(`Cannot queue the request: ${this.#taken} of ${this.#capacity} places are taken`, {
        status: 429,
        code: "queue_full",
        headers: { "retry-after": "1" },
      });
    }
    this.#taken += count;
    return Array.from({ length: count }, () => this.#place());
  }

  #place(): QueuePlace {
    let held = true;
    return {
      leave: () => {
        if (held) this.#taken--;
        held = false;
      },
    };
  }
}
