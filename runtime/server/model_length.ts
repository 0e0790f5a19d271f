/**
 * The longest prompt plus output that an instance can run now.
 *
 * @module
 */
import type { ClusterControl } from "../cluster/report.ts";

/** How long a length counts as the present one. */
const FRESH_MS = 1000;
/** How long a request waits for a newer one. */
const WAIT_MS = 500;

/** Options of {@linkcode ModelLength}. */
export interface ModelLengthOptions {
  /** Length of the instance by itself, tokens. */
  readonly alone: number;
  /** Cluster that makes it longer. */
  readonly cluster?: ClusterControl;
  /** Monotonic clock, ms. */
  readonly now: () => number;
}

/** Knows the length, and asks the cluster anew at most once a second. */
export class ModelLength {
  readonly #options: ModelLengthOptions;
  #last: number;
  #asked: { readonly atMs: number; readonly answer: Promise<void> } | undefined;

  /** Begins with the instance by itself. */
  constructor(options: ModelLengthOptions) {
    this.#options = options;
    this.#last = options.alone;
  }

  /** The length in tokens; the last one known while the cluster does not answer. Never throws. */
  async current(): Promise<number> {
    const { cluster, now } = this.#options;
    if (cluster === undefined) return this.#last;
    if (this.#asked === undefined || now() - this.#asked.atMs >= FRESH_MS) {
      this.#asked = { atMs: now(), answer: this.#ask(cluster) };
    }
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => timer = setTimeout(resolve, WAIT_MS));
    await Promise.race([this.#asked.answer, late]);
    clearTimeout(timer);
    return this.#last;
  }

  async #ask(cluster: ClusterControl): Promise<void> {
    try {
      this.#last = (await cluster.report()).reachableModelLen;
    } catch {
      // Whether the engine answers is told by readiness; here the last answer stands.
    }
  }
}
