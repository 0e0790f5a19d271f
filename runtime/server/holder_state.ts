/**
 * State of an instance that lends memory and runs no model.
 *
 * @module
 */
import type { Registry } from "prom-client";
import type { ClusterControl } from "../cluster/report.ts";
import { describeFailure, type Logger } from "./logger.ts";
import { ClusterMetrics } from "./cluster_metrics.ts";
import { type InstanceState, inTime, unready } from "./instance_state.ts";

/** Options of {@linkcode HolderState}. */
export interface HolderStateOptions {
  /** The holder, maybe still starting. */
  readonly holder: Promise<{ readonly cluster: ClusterControl }>;
  /** Where its metrics are registered. */
  readonly registry: Registry;
  /** First part of their names. */
  readonly metricsPrefix: string;
  /** Log. */
  readonly logger: Logger;
}

/** Holds requests back until the holder has started. */
export class HolderState implements InstanceState {
  readonly #metrics: ClusterMetrics;
  #cluster: ClusterControl | undefined;
  #failed = false;
  #stopping = false;

  /** Waits for the holder in the background. */
  constructor({ holder, registry, metricsPrefix: prefix, logger }: HolderStateOptions) {
    this.#metrics = new ClusterMetrics({ registry, prefix });
    void holder.then(({ cluster }) => this.#cluster = cluster).catch((error) => {
      this.#failed = true;
      logger.error("holder failed to start", describeFailure(error));
    });
  }

  requireCluster(): ClusterControl {
    if (this.#failed) throw unready("holder_failed", "the holder could not be started");
    if (this.#cluster === undefined) throw unready("holder_starting", "the holder is still starting");
    return this.#cluster;
  }

  async checkReady(): Promise<void> {
    if (this.#stopping) throw unready("shutting_down", "the server is stopping");
    if (await inTime(this.requireCluster().report()) === undefined) {
      throw unready("holder_unresponsive", "the holder does not answer");
    }
  }

  async refreshMetrics(): Promise<void> {
    const report = await inTime(this.#cluster?.report());
    if (report !== undefined) this.#metrics.refresh(report);
  }

  stop(): void {
    this.#stopping = true;
  }
}
