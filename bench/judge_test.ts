import { assertAlmostEquals, assertEquals } from "@std/assert";
import { judge } from "./judge.ts";
import type { Row } from "./rows.ts";
import { summarize } from "./statistics.ts";

const RATE: Row = {
  id: "decode-128",
  title: "rate",
  unit: "tokens/s",
  better: "higher",
  ceilings: ["read"],
  goals: [
    { basis: "native", atLeast: 1.2, aim: 2 },
    { basis: "wllama", atLeast: 5, aim: 12 },
    { basis: "ceiling", aim: 0.88 },
  ],
};
const TIME: Row = { ...RATE, unit: "ms", better: "lower", goals: [{ basis: "native", atLeast: 0.6, aim: 0.35 }] };
const SIZE: Row = { ...RATE, unit: "MB", better: "lower", goals: [{ basis: "none", atLeast: 250, aim: 150 }] };

const one = (value: number) => summarize([value]);

Deno.test("judge() compares with the fastest native peer", () => {
  const result = judge(RATE, {
    ours: one(280),
    peers: { "wllama": one(20), "llama-server": one(119), "llama-bench": one(140), "node-llama-cpp": one(73) },
    ceiling: 300,
  });
  assertEquals(result.native, "llama-bench");
  assertAlmostEquals(result.ratios.native ?? 0, 2);
  assertAlmostEquals(result.ratios.wllama ?? 0, 14);
  assertEquals(result.verdict, "aim");
});

Deno.test("judge() takes the smallest native figure where lower is better", () => {
  const result = judge(TIME, { ours: one(180), peers: { "llama-server": one(400), "node-llama-cpp": one(360) } });
  assertEquals(result.native, "node-llama-cpp");
  assertEquals(result.verdict, "at least");
});

Deno.test("judge() calls a row missed when one measured goal is, whatever is not measured", () => {
  assertEquals(judge(RATE, { ours: one(100), peers: { "llama-bench": one(140) } }).verdict, "missed");
});

Deno.test("judge() calls a row open when something it must reach was not measured", () => {
  assertEquals(judge(RATE, { ours: one(280), peers: { "llama-bench": one(140) }, ceiling: 300 }).verdict, "open");
});

Deno.test("judge() does not give the aim without the ceiling", () => {
  const peers = { "llama-bench": one(140), "wllama": one(20) };
  assertEquals(judge(RATE, { ours: one(280), peers }).verdict, "at least");
});

Deno.test("judge() holds goals without a basis against the figure itself", () => {
  assertEquals(judge(SIZE, { ours: one(150), peers: {} }).verdict, "aim");
  assertEquals(judge(SIZE, { ours: one(249), peers: {} }).verdict, "at least");
  assertEquals(judge(SIZE, { ours: one(251), peers: {} }).verdict, "missed");
});
