/**
 * Metrics of the process and of its HTTP door.
 *
 * @module
 */
import { Counter, Gauge, type Registry } from "prom-client";

/** Options of {@linkcode HttpMetrics}. */
export interface HttpMetricsOptions {
  /** Where the metrics are registered. */
  readonly registry: Registry;
  /** First part of the names of HTTP metrics. */
  readonly prefix: string;
  /** Requests being answered. */
  readonly running: () => number;
  /** Requests without a token yet. */
  readonly queued: () => number;
}

/** Counts answers; reports memory, CPU time and requests at hand when scraped. */
export class HttpMetrics {
  readonly #answers: Counter<"handler" | "status">;

  /** Registers the metrics. */
  constructor(options: HttpMetricsOptions) {
    const { registry, prefix } = options;
    this.#answers = new Counter({
      registers: [registry],
      labelNames: ["handler", "status"],
      name: `${prefix}:http_requests_total`,
      help: "HTTP answers by route and status, liveness not counted; 499 is a client that left.",
    });
    const started = Date.now() / 1000 - performance.now() / 1000;
    const gauges: readonly (readonly [name: string, help: string, read: () => number])[] = [
      [`${prefix}:http_requests_running`, "HTTP requests being answered.", options.running],
      [`${prefix}:http_requests_queued`, "Requests without a token yet.", options.queued],
      ["process_start_time_seconds", "Start of the process, since the epoch.", () => started],
      ["process_resident_memory_bytes", "Resident memory.", () => Deno.memoryUsage().rss],
      ["process_heap_bytes", "JavaScript heap in use.", () => Deno.memoryUsage().heapUsed],
    ];
    for (const [name, help, read] of gauges) {
      new Gauge({
        registers: [registry],
        name,
        help,
        collect() {
          this.set(read());
        },
      });
    }
  }

  /** Counts one answer of `route`. */
  answered(route: string, status: number): void {
    this.#answers.inc({ handler: route, status });
  }
}
