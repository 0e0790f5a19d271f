import { assertEquals } from "@std/assert";
import { judgeRow } from "./row.ts";
import { servingRows } from "./serving_part.ts";

const ROW = {
  model: "llama3-8b",
  requests: 256,
  promptTokens: 1024,
  answerTokens: 256,
  stream: true,
  seconds: 10,
  tokensPerSecond: 6500,
  firstMs: { median: 4000, max: 8000 },
  ownedBlocks: 0,
  openSeconds: 2,
};

Deno.test("servingRows() compares only the same load with vLLM", () => {
  const [same, other] = servingRows([ROW, { ...ROW, requests: 32 }]);
  assertEquals(same.comparisons[0], { basis: "vLLM on an H200, no HTTP", ratio: 1.085, atLeast: 0.8, aim: 1.1 });
  assertEquals(judgeRow(same), "at least");
  assertEquals(other.comparisons.length, 1);
});

Deno.test("servingRows() misses when a block is still owned", () => {
  assertEquals(judgeRow(servingRows([{ ...ROW, ownedBlocks: 3 }])[0]), "missed");
});
