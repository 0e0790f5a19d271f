import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { summarize } from "../statistics.ts";
import { renderClusterReport } from "./report.ts";
import { type ClusterBenchResult, judgeCluster, type Measured, parseClusterResult } from "./result.ts";
import { findClusterRow } from "./rows.ts";

function measured(...samples: number[]): Measured {
  return { figures: summarize(samples), how: "two processes", details: [] };
}

Deno.test("judgeCluster() compares the median with both goals, in the direction of the row", () => {
  const lower = findClusterRow("round-trip");
  assertEquals([0.2, 0.25, 0.4, 0.6].map((ms) => judgeCluster(lower, measured(0, ms, 9)).verdict), [
    "aim",
    "aim",
    "at least",
    "missed",
  ]);
  const higher = findClusterRow("decode-quarter");
  assertEquals([0.8, 0.5, 0.4].map((ratio) => judgeCluster(higher, measured(ratio)).verdict), [
    "aim",
    "at least",
    "missed",
  ]);
});

Deno.test("judgeCluster() takes the bound for the aim where no aim is stated", () => {
  const row = findClusterRow("busy-holder");
  assertEquals([4, 6].map((ms) => judgeCluster(row, measured(ms)).verdict), ["aim", "missed"]);
});

const RESULT: ClusterBenchResult = {
  version: 1,
  date: "2026-11-24T10:00:00.000Z",
  commit: "abc",
  hardware: { cpu: "CPU", cores: 2, features: [], memoryBytes: 2 ** 34, os: "linux", runtime: "Deno" },
  load: { before: [0, 0, 0], after: [1, 1, 1] },
  settings: { model: "m", digest: "d", context: 4096, repeats: 3, steps: 64, batch: 8, seed: 1, quick: false },
  rows: [
    judgeCluster(findClusterRow("round-trip"), {
      ...measured(0.2, 0.26, 0.3),
      details: [{ what: "send", unit: "ms", figures: summarize([0.004]) }],
    }),
  ],
  notes: ["paused: it did not work"],
};

Deno.test("renderClusterReport() shows rows, goals, details, how and what was left out", () => {
  const report = renderClusterReport(RESULT);
  assertStringIncludes(report, "| 0.260 (0.200–0.300) | ≤ 0.5 ms; aim ≤ 0.25 ms | at least |");
  assertStringIncludes(report, "| round-trip | send");
  assertStringIncludes(report, "0.004");
  assertStringIncludes(report, "- round-trip: two processes");
  assertStringIncludes(report, "- paused: it did not work");
  assertStringIncludes(report, "4,096 tokens of context, 3 samples");
});

Deno.test("parseClusterResult() reads what was written, and no other version", () => {
  assertEquals(parseClusterResult(JSON.stringify(RESULT)), RESULT);
  assertThrows(() => parseClusterResult('{"version":0}'), TypeError, "wanted version 1, got 0");
});
