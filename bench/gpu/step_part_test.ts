import { assertAlmostEquals, assertEquals } from "@std/assert";
import { judgeRow } from "./row.ts";
import { stepRows } from "./step_part.ts";

Deno.test("stepRows() holds single sequences to the roofline and to vLLM's share of its own", () => {
  // 16 GB read in 6.4 ms by a chip that reads 3.2 TB/s: 5 ms would be the roofline.
  const [row] = stepRows([
    { model: "llama3-8b", what: "decode b1 at 1024", ms: 6.4, tokensPerSecond: 156, roofline: 5 / 6.4 },
  ], 3.2e12);
  assertEquals([row.title, row.unit, row.value], ["llama3-8b, decode b1 at 1024", "ms", 6.4]);
  const [roofline, vllm] = row.comparisons;
  assertEquals(roofline, { basis: "roofline", ratio: 5 / 6.4, atLeast: 0.72, aim: 0.88 });
  assertAlmostEquals(vllm.ratio ?? 0, (5 / 6.4) / (16e9 / 4.69e12 / 5.026e-3), 1e-9);
  assertEquals(judgeRow(row), "at least");
});

Deno.test("stepRows() holds the small shape to milliseconds, prompts to tokens a second, and asks nothing of variants", () => {
  const rows = stepRows([
    { model: "smollm2-135m", what: "decode b1 at 256", ms: 0.2, tokensPerSecond: 5000, roofline: 0.4 },
    { model: "llama2-7b", what: "prefill 8192", ms: 400, tokensPerSecond: 20_000 },
    { model: "llama2-7b", what: "decode b1 at 1024, no graphs", ms: 40, tokensPerSecond: 25, roofline: 0.1 },
    { model: "llama2-7b", what: "decode b64 at 1024", ms: 20, tokensPerSecond: 3200, roofline: 0.7, idle: 0.2 },
  ], 3.2e12);
  assertEquals(rows.map(judgeRow), ["aim", "missed", "none", "missed"]);
  assertEquals(rows[1].unit, "tokens/s");
});

Deno.test("stepRows() shows deterministic steps beside the same ones that are not", () => {
  const what = "decode b32 at 1024, deterministic";
  const [row] = stepRows([{ model: "llama3-8b", what, ms: 20, tokensPerSecond: 1600, plainMs: 8 }], 3.2e12);
  assertEquals(row.comparisons, [{ basis: "the same without --deterministic", ratio: 0.4 }]);
});
