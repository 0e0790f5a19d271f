/**
 * One run of the cluster benchmark: runs the rows one after the other, puts the result together.
 *
 * @module
 */
import { findModel } from "../../runtime/hub/find_model.ts";
import { ProgressBar } from "../../runtime/hub/progress.ts";
import { openModel } from "../../runtime/model/open_model.ts";
import { within } from "../../tests/cluster/deadline.ts";
import { readCommit, readHardware, readLoad } from "../hardware.ts";
import type { BenchContext } from "./bench_context.ts";
import type { ClusterBenchOptions } from "./options.ts";
import {
  CLUSTER_RESULT_VERSION,
  type ClusterBenchResult,
  type ClusterRowResult,
  judgeCluster,
  type Measured,
} from "./result.ts";
import { measureBatchQuarter, measureDecodeMoving, measureDecodeQuarter } from "./decode_rows.ts";
import { measureBusyHolder } from "./busy_holder.ts";
import { measureNotice, measureRepair } from "./loss_rows.ts";
import { measureThreeSmall } from "./three_small.ts";
import { measureRoundTrip } from "./round_trip.ts";
import { type ClusterRowId, findClusterRow } from "./rows.ts";

/** Who hears about the progress of a run. */
export interface ClusterRunListener {
  /** Takes a line for people. */
  readonly log: (line: string) => void;
  /** Takes the result so far, after each row, so that an interrupted run is not lost. */
  readonly save: (result: ClusterBenchResult) => void;
}

function measure(id: ClusterRowId, context: BenchContext): Promise<Measured> {
  switch (id) {
    case "round-trip":
      return measureRoundTrip(context);
    case "decode-quarter":
      return measureDecodeQuarter(context);
    case "batch-quarter":
      return measureBatchQuarter(context);
    case "decode-moving":
      return measureDecodeMoving(context);
    case "repair":
      return measureRepair(context);
    case "killed":
    case "paused":
      return measureNotice(context, id);
    case "busy-holder":
      return measureBusyHolder(context);
    case "three-small":
      return measureThreeSmall(context);
    default:
      return id satisfies never;
  }
}

/** Runs the rows that were asked for. */
export async function runClusterRows(
  options: ClusterBenchOptions,
  { log, save }: ClusterRunListener,
): Promise<ClusterBenchResult> {
  const date = new Date().toISOString();
  const loadBefore = readLoad();
  const commit = await readCommit();
  const reporter = new ProgressBar({ terminal: false, write: (text) => log(text.trimEnd()) });
  const modelPath = await findModel(options.model, { reporter });
  using model = openModel(modelPath);
  const rows: ClusterRowResult[] = [];
  const notes: string[] = [];
  const { context, repeats, steps, batch, seed, quick } = options;
  const resultSoFar = (): ClusterBenchResult => ({
    version: CLUSTER_RESULT_VERSION,
    date,
    commit,
    hardware: readHardware(),
    load: { before: loadBefore, after: readLoad() },
    settings: { model: model.name, digest: model.digest, context, repeats, steps, batch, seed, quick },
    rows,
    notes,
  });
  for (const id of options.rows) {
    log(id);
    const untilMs = performance.now() + options.rowMs;
    try {
      const measured = await within(options.rowMs, `row ${id}`, measure(id, { model, modelPath, options, log }));
      rows.push(judgeCluster(findClusterRow(id), measured));
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      notes.push(`${id}: ${reason}`);
      log(`left out: ${id}: ${reason}`);
    }
    save(resultSoFar());
    // What is late still runs and would disturb the others.
    if (performance.now() >= untilMs) break;
  }
  return resultSoFar();
}
