import { assertEquals } from "@std/assert";
import { type Comparison, judgeRow } from "./row.ts";

const judge = (...comparisons: Comparison[]) => judgeRow({ comparisons });

Deno.test("judgeRow() holds every comparison to what must be reached, then to its aim", () => {
  const basis = "read ceiling";
  assertEquals(judge({ basis, ratio: 0.89, atLeast: 0.9, aim: 0.97 }), "missed");
  assertEquals(judge({ basis, ratio: 0.9, atLeast: 0.9, aim: 0.97 }), "at least");
  assertEquals(judge({ basis, ratio: 0.98, atLeast: 0.9, aim: 0.97 }), "aim");
  assertEquals(
    judge({ basis, ratio: 0.98, atLeast: 0.9, aim: 0.97 }, { basis: "cuDNN", ratio: 0.9, aim: 1 }),
    "at least",
  );
});

Deno.test("judgeRow() leaves open what was not measured, and an aim that was not measured unreached", () => {
  assertEquals(judge({ basis: "cuDNN", atLeast: 0.65, aim: 1 }), "open");
  assertEquals(judge({ basis: "read", ratio: 0.98, atLeast: 0.9, aim: 0.97 }, { basis: "cuDNN", aim: 1 }), "at least");
  assertEquals(judge({ basis: "read", ratio: 0.5, atLeast: 0.9 }, { basis: "cuDNN", atLeast: 1 }), "missed");
});

Deno.test("judgeRow() gives no verdict where nothing is asked", () => {
  assertEquals(judge({ basis: "a read of that size", ratio: 0.3 }), "none");
});
