import { assertEquals } from "@std/assert";
import { decodeJob, decodeRows } from "./decode_part.ts";
import { judgeRow } from "./row.ts";

Deno.test("decodeJob() reads shape, batch and tokens, and leaves unlike lengths out", () => {
  assertEquals(decodeJob("32/8 heads of 128, 32 x 4K"), "32,8,128,32,4096");
  assertEquals(decodeJob("9/3 heads of 64, 1 x 1,000,000"), "9,3,64,1,1000000");
  assertEquals(decodeJob("32/8 heads of 128, 1 x 128K + 31 x 4K"), undefined);
});

Deno.test("decodeRows() holds large contexts to the read ceiling and cuDNN, small ones to a read, mixed ones to uniform ones", () => {
  const measured = [
    { name: "32/8 heads of 128, 1 x 8K", us: 18, tbs: 1.9, share: 0.6, readUs: 12 },
    { name: "32/8 heads of 128, 64 x 4K", us: 350, tbs: 3, share: 0.95, readUs: 340 },
    { name: "32/8 heads of 128, 1 x 128K + 31 x 4K", us: 380, tbs: 2.9, share: 0.92, readUs: 350 },
    { name: "9/3 heads of 64, 64 x 4K", us: 80, tbs: 2.5, share: 0.78, readUs: 70 },
  ];
  const us = new Map([["32,8,128,64,4096", 360], ["32,8,128,1,8192", 20]] as const);
  const rows = decodeRows(measured, { version: "PyTorch", us });
  assertEquals(rows.map(judgeRow), ["at least", "at least", "at least", "none"]);
  assertEquals(rows[0].comparisons[0].ratio, 12 / 18);
  assertEquals(rows[0].peers, { cuDNN: 20 });
  assertEquals(rows[1].comparisons, [
    { basis: "read ceiling", ratio: 0.95, atLeast: 0.9, aim: 0.97 },
    { basis: "cuDNN", ratio: 360 / 350, aim: 1 },
  ]);
  assertEquals(rows[2].comparisons[0].ratio, 2.9 / 3);
});
