import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { judge } from "./judge.ts";
import { renderReport, renderShortReport } from "./report.ts";
import { type BenchResult, parseResult, RESULT_VERSION } from "./result.ts";
import { type RowId, ROWS } from "./rows.ts";
import { summarize } from "./statistics.ts";
import { buildTable, formatNumber, markdownTable, textTable } from "./table.ts";

function row(id: RowId) {
  const found = ROWS.find((row) => row.id === id);
  if (found === undefined) throw new RangeError(`Cannot test row ${id}`);
  return found;
}

const RESULT: BenchResult = {
  version: RESULT_VERSION,
  date: "2026-11-24T10:00:00.000Z",
  commit: "0123456789ab",
  hardware: {
    cpu: "Some CPU",
    cores: 2,
    features: ["avx2"],
    memoryBytes: 24 * 2 ** 30,
    os: "linux 6.1 x86_64",
    runtime: "Deno 2, V8 15",
  },
  load: { before: [0.1, 0.2, 0.3], after: [2, 1, 1] },
  settings: { model: "M", digest: "00", threads: 2, pin: false, repeats: 3, warmMs: 0, seed: 1, decodedTokens: 64 },
  contestants: { "ours": "wasm", "llama-bench": "llama.cpp abc" },
  ceilings: { "read": summarize([31e9, 33e9, 35e9]), "dot": summarize([235e9]) },
  rows: [
    judge(row("decode-128"), {
      ours: summarize([270, 280, 290]),
      peers: { "llama-bench": summarize([139, 140, 141]), "wllama": summarize([20, 22]) },
      ceiling: 310,
    }),
    judge(row("warm-start"), { ours: summarize([900]), peers: {} }),
    judge(row("health"), { ours: summarize([6000]), peers: { "bare node:http": summarize([12000]) } }),
  ],
  notes: ["node-llama-cpp: there is no node"],
};

Deno.test("formatNumber() keeps three digits and separates thousands", () => {
  assertEquals([0.5, 7.351, 21, 140.36, 12345.6].map(formatNumber), ["0.50", "7.35", "21.0", "140", "12,346"]);
});

Deno.test("buildTable() puts medians, ranges, ratios, goals and the result into a row", () => {
  const { header, rows } = buildTable(RESULT);
  assertEquals(header.length, rows[0].length);
  assertEquals(rows[0], [
    "decode, batch 1, 128 tokens of context",
    "tokens/s",
    "280 (270–290)",
    "140 (139–141)",
    "21.0 (20.0–22.0)",
    "–",
    "2.00",
    "13.33",
    "0.90",
    "≥ 1.2× native, ≥ 5× wllama; aim ≥ 2× native, ≥ 12× wllama, ≥ 0.88 of the ceiling",
    "aim",
  ]);
  assertEquals(rows[1].slice(-2), ["≤ 2,000 ms; aim ≤ 1,000 ms", "aim"]);
  assertEquals(rows[2].slice(-5), ["0.50 (bare)", "–", "–", "≥ 0.5× bare; aim ≥ 0.7× bare", "at least"]);
});

Deno.test("textTable() aligns its columns", () => {
  const lines = textTable({ header: ["a", "bb"], rows: [["–", "x"], ["ccc", "y"]] }).split("\n");
  assertEquals(lines, ["a    bb", "–    x", "ccc  y"]);
});

Deno.test("markdownTable() writes a header, a rule and the rows", () => {
  assertEquals(
    markdownTable({ header: ["a", "bb"], rows: [["ccc", "x"]] }),
    "| a   | bb |\n| --- | -- |\n| ccc | x  |",
  );
});

Deno.test("renderReport() states machine, load, settings, ceilings, contestants and what is missing", () => {
  const report = renderReport(parseResult(JSON.stringify(RESULT)));
  for (
    const part of [
      "2026-11-24, commit 0123456789ab",
      "Some CPU, 2 cores (avx2); 24.0 GiB",
      "Load average 0.1 0.2 0.3 before, 2 1 1 after",
      "2 threads, not pinned, 3 turns, seed 1",
      "33.0 (31.0–35.0)",
      "- llama-bench: llama.cpp abc",
      "- node-llama-cpp: there is no node",
    ]
  ) assertStringIncludes(report, part);
});

Deno.test("renderShortReport() names the fastest native peer or the bare server with its figure", () => {
  const lines = renderShortReport(RESULT).split("\n");
  assertEquals(lines[0], "M, 2 threads of Some CPU (2 cores), 2026-11-24.");
  const cells = lines[4].split("|").map((cell) => cell.trim()).slice(1, -1);
  assertEquals(cells.slice(2), ["280", "140 (llama-bench)", "21.0", "2.00", "13.33", "0.90"]);
  assertStringIncludes(lines[6], "12,000 (bare node:http)");
});

Deno.test("parseResult() refuses another version", () => {
  assertThrows(() => parseResult('{"version":99}'), TypeError, "wanted version 1, got 99");
});
