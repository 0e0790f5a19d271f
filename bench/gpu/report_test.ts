import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { renderGpuReport, renderShortGpuReport } from "./report.ts";
import { GPU_RESULT_VERSION, type GpuBenchResult, judgeRows, parseGpuResult } from "./result.ts";
import { gpuTable } from "./table.ts";

const RESULT: GpuBenchResult = {
  version: GPU_RESULT_VERSION,
  date: "2026-11-24T10:00:00.000Z",
  commit: "0123456789ab",
  hardware: {
    name: "Some GPU",
    capability: "9.0",
    multiprocessors: 132,
    memoryBytes: 80 * 2 ** 30,
    driver: "13.0",
    state: { clock: "1980 MHz", mostClock: "1980 MHz", memoryClock: "2619 MHz", powerLimit: "700.00 W" },
    host: { cpu: "Some CPU", cores: 16, features: [], memoryBytes: 2 ** 37, os: "linux", runtime: "Deno 2, V8 15" },
  },
  stateAfter: { clock: "1755 MHz", mostClock: "1980 MHz", memoryClock: "2619 MHz", powerLimit: "700.00 W" },
  seed: 1,
  torch: "PyTorch 2, cuDNN 9",
  ceilings: { "read, bytes/s": 3.17e12 },
  rows: judgeRows([
    {
      part: "decode",
      title: "decode attention, large",
      unit: "µs",
      value: 351.4,
      peers: { cuDNN: 360 },
      comparisons: [
        { basis: "read ceiling", ratio: 0.951, atLeast: 0.9, aim: 0.97 },
        { basis: "cuDNN", ratio: 1.0244, aim: 1 },
      ],
    },
    {
      part: "decode",
      title: "small",
      unit: "µs",
      value: 0.5,
      peers: {},
      comparisons: [{ basis: "a read", ratio: 0.3 }],
    },
    {
      part: "prefill",
      title: "prefill",
      unit: "TFLOP/s",
      value: 600,
      peers: {},
      comparisons: [{ basis: "cuDNN", atLeast: 0.65 }],
    },
  ]),
  notes: ["serving: no memory"],
};

Deno.test("gpuTable() puts figures, peers, comparisons, goals and the verdict into a row", () => {
  assertEquals(gpuTable(RESULT).rows, [
    [
      "decode attention, large",
      "µs",
      "351",
      "360 (cuDNN)",
      "0.95 of read ceiling; 1.02 of cuDNN",
      "≥ 0.90, aim 0.97; aim 1.00",
      "at least",
    ],
    ["small", "µs", "0.500", "–", "0.30 of a read", "–", "–"],
    ["prefill", "TFLOP/s", "600", "–", "– of cuDNN", "≥ 0.65", "open"],
  ]);
});

Deno.test("renderGpuReport() states GPU, clocks, versions, ceilings and what is missing", () => {
  const report = renderGpuReport(parseGpuResult(JSON.stringify(RESULT)));
  for (
    const part of [
      "2026-11-24, commit 0123456789ab, seed 1. Some GPU (compute capability 9.0, 132 multiprocessors, 80.0 GiB), CUDA 13.0",
      "1980 MHz before and 1755 MHz after of at most 1980 MHz",
      "PyTorch 2, cuDNN 9",
      "3.17",
      "- serving: no memory",
    ]
  ) assertStringIncludes(report, part);
});

Deno.test("renderShortGpuReport() shows only rows that stand for the others", () => {
  const rows = RESULT.rows.map((row, i) =>
    i === 0 ? { ...row, title: "prefill attention, 32/8 x 128, 16384 tokens" } : row
  );
  const lines = renderShortGpuReport({ ...RESULT, rows }).split("\n");
  assertStringIncludes(lines[0], "Some GPU, CUDA 13.0");
  assertEquals(lines.length, 5);
  assertStringIncludes(lines[4], "| prefill attention, 32/8 x 128, 16384 tokens |");
});

Deno.test("parseGpuResult() refuses another version", () => {
  assertThrows(() => parseGpuResult('{"version":99}'), TypeError, "wanted version 1, got 99");
});
