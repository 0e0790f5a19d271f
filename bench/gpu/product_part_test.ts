import { assertEquals } from "@std/assert";
import { productJob, productRows } from "./product_part.ts";
import { judgeRow } from "./row.ts";

Deno.test("productRows() asks bf16 products of the large shapes to be no slower than cuBLASLt", () => {
  const measured = [
    { name: "o 4096x4096", dtype: "BF16", tokens: 1, us: 10, readUs: 9.6, blasUs: 13 },
    { name: "o", dtype: "BF16", tokens: 32, us: 14, readUs: 9.6, blasUs: 13 },
    { name: "o", dtype: "BF16", tokens: 64, us: 14, readUs: 9.6, blasUs: 13 },
    { name: "135M o", dtype: "BF16", tokens: 1, us: 3, readUs: 2, blasUs: 2.5 },
    { name: "o", dtype: "Q4_0", tokens: 1, us: 4, readUs: 3 },
  ];
  const rows = productRows(measured, { version: "PyTorch 2", us: new Map([["mm,1,4096,4096", 15]]) });
  assertEquals(measured.map(productJob), ["mm,1,4096,4096", undefined, undefined, undefined, undefined]);
  assertEquals(rows.map(judgeRow), ["aim", "missed", "none", "none", "none"]);
  assertEquals(rows[0].peers, { cuBLASLt: 13, PyTorch: 15 });
  assertEquals(rows[4].comparisons, [{ basis: "a read of that size", ratio: 0.75 }]);
});
