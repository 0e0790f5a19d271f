/**
 * A cluster for tests that reports and answers what it is told to.
 *
 * @module
 */
import type { ClusterCommand, ClusterControl, ClusterReport, CommandResult } from "../../cluster/report.ts";

/** Two full members and a holder; `one` writes the report and borrows from the holder. */
export const SAMPLE_REPORT: ClusterReport = {
  from: "one",
  manager: "one",
  epoch: 3,
  memoryPolicy: "infinite-llm",
  segmentTokens: 256,
  blockTokens: 64,
  reachableModelLen: 4096,
  members: [
    {
      id: "one",
      role: "full",
      state: "alive",
      manager: true,
      pid: 11,
      url: "http://127.0.0.1:8080",
      clusterUrl: "http://127.0.0.1:7600",
      blocks: { total: 16, free: 2, own: 14, lent: 0, quarantined: 0, borrowed: 8, lendable: 0 },
      load: {
        running: 1,
        waiting: 2,
        maxBatch: 8,
        tokensPerSecond: 12.34,
        counters: {
          remote_attention_seconds: 1.5,
          remote_layer_waits: 60,
          remote_layer_wait_seconds: 0.75,
          moves_done: 2,
          moves_failed: 1,
          repairs: 3,
          repaired_tokens: 512,
          refused_no_space: 4,
          "refused_no such code": 9,
          bytes_in: 1000,
          bytes_out: 2000,
          something_else: 5,
        },
        performance: { batch: [1, 8], batchMs: [5, 9], attentionMs: 0.5, error: 0.07, steps: 90 },
      },
      silentMs: 0,
    },
    {
      id: "two",
      role: "full",
      state: "suspect",
      manager: false,
      pid: 12,
      url: "http://127.0.0.1:8081",
      clusterUrl: "http://127.0.0.1:7601",
      blocks: { total: 16, free: 16, own: 0, lent: 0, quarantined: 0, borrowed: 0, lendable: 12 },
      load: { running: 0, waiting: 0, maxBatch: 8, tokensPerSecond: 0, counters: {} },
      silentMs: 2500,
    },
    {
      id: "attic",
      role: "holder",
      state: "alive",
      manager: false,
      pid: 13,
      url: "",
      clusterUrl: "http://127.0.0.1:7602",
      blocks: { total: 32, free: 20, own: 0, lent: 8, quarantined: 4, borrowed: 0, lendable: 20 },
      load: { running: 0, waiting: 0, maxBatch: 0, tokensPerSecond: 0, counters: {} },
      silentMs: 120,
    },
  ],
  sequences: [{
    id: "one/7",
    home: "one",
    length: 1400,
    pinned: true,
    ranges: [
      { instance: "attic", start: 0, end: 512, bytes: 4096, ageMs: 61_000 },
      { instance: "one", start: 512, end: 1400, bytes: 7104, ageMs: 900 },
    ],
  }],
  leases: [{ id: "attic/1", creditor: "attic", debtor: "one", segments: 2, expiresMs: 8000 }],
  moves: [
    { sequence: "one/7", from: "one", to: "attic", segments: 2, state: "done", predictedGain: 3.5, measuredGain: 3 },
  ],
};

/** Keeps what it was asked for. */
export class FakeCluster implements ClusterControl {
  /** What {@linkcode report} answers. */
  state: ClusterReport;
  /** Replaces the answer of {@linkcode report}. */
  answer: (() => Promise<ClusterReport>) | undefined;
  /** How often {@linkcode report} was called. */
  reports = 0;
  /** Commands in the order they came. */
  readonly commands: ClusterCommand[] = [];
  /** What {@linkcode operate} answers. */
  result: CommandResult = { ok: true, message: "done as told" };
  /** Time-outs of {@linkcode leave}. */
  readonly leaves: number[] = [];

  constructor(changes: Partial<ClusterReport> = {}) {
    this.state = { ...SAMPLE_REPORT, ...changes };
  }

  report(): Promise<ClusterReport> {
    this.reports++;
    return this.answer?.() ?? Promise.resolve(this.state);
  }

  operate(command: ClusterCommand): Promise<CommandResult> {
    this.commands.push(command);
    return Promise.resolve(this.result);
  }

  leave(timeoutMs: number): Promise<void> {
    this.leaves.push(timeoutMs);
    return Promise.resolve();
  }
}
