/**
 * Turns the JSON of a GPU benchmark into Markdown, so that no figure in the documents is typed by hand.
 *
 *     deno run --allow-read --allow-write bench/gpu/report.ts RESULT.json [--short] [--into FILE.md]
 *
 * `--short` gives one small table. With `--into`, the report replaces what stands between the lines `<!-- gpu:begin -->` and
 * `<!-- gpu:end -->`.
 *
 * @module
 */
import { runReport } from "../report_command.ts";
import { formatNumber, markdownTable } from "../table.ts";
import { type GpuBenchResult, parseGpuResult } from "./result.ts";
import { gpuCeilings, gpuShortTable, gpuTable } from "./table.ts";

/** Markdown of a result: the GPU, every row, the ceilings, what was left out. */
export function renderGpuReport(result: GpuBenchResult): string {
  const { hardware, stateAfter, rows, ceilings, notes, torch, seed } = result;
  const { name, capability, multiprocessors, memoryBytes, driver, state, host } = hardware;
  const clocks = state === undefined
    ? "clocks unknown"
    : `${state.clock} before and ${stateAfter?.clock ?? "unknown"} after of at most ${state.mostClock}, memory ` +
      `${state.memoryClock}, limit ${state.powerLimit}`;
  return [
    `${result.date.slice(0, 10)}, commit ${result.commit}, seed ${seed}. ${name} (compute capability ${capability}, ` +
    `${multiprocessors} multiprocessors, ${formatNumber(memoryBytes / 2 ** 30)} GiB), CUDA ${driver}, ${clocks}; ` +
    `${host.cpu}, ${host.cores} cores; ${host.runtime}; ${torch ?? "no PyTorch"}.`,
    markdownTable(gpuTable({ rows })),
    ...(Object.keys(ceilings).length === 0 ? [] : [markdownTable(gpuCeilings({ ceilings }))]),
    ...(notes.length === 0 ? [] : ["Left out:", notes.map((note) => `- ${note}`).join("\n")]),
  ].join("\n\n");
}

/** One small table, and what it was measured on. */
export function renderShortGpuReport({ hardware, date, commit, rows }: GpuBenchResult): string {
  return [
    `${hardware.name}, CUDA ${hardware.driver}, bf16, random weights of the true shapes, ${
      date.slice(0, 10)
    }, commit ` +
    `${commit}.`,
    markdownTable(gpuShortTable({ rows })),
  ].join("\n\n");
}

if (import.meta.main) {
  Deno.exit(runReport(Deno.args, {
    program: "bench/gpu/report.ts",
    mark: "gpu",
    parse: parseGpuResult,
    render: renderGpuReport,
    renderShort: renderShortGpuReport,
  }));
}
