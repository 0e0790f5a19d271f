import { assertAlmostEquals, assertEquals } from "@std/assert";
import { stepLine } from "./step_line.ts";

Deno.test("stepLine() is the line of points on a line, and never falls", () => {
  const { stepMs, sequenceMs } = stepLine({ batch: [2, 4, 16], batchMs: [12, 16, 40] });
  assertAlmostEquals(stepMs, 10, 1e-9);
  assertAlmostEquals(sequenceMs, 2, 1e-9);
  assertEquals(stepLine({ batch: [1, 3], batchMs: [9, 5] }), { stepMs: 7, sequenceMs: 0 });
});

Deno.test("stepLine() leaves unknown what was not measured", () => {
  assertEquals(stepLine({ batch: [1], batchMs: [9] }), { stepMs: 9, sequenceMs: NaN });
  assertEquals(stepLine({ batch: [4], batchMs: [9] }), { stepMs: NaN, sequenceMs: NaN });
  assertEquals(stepLine({ batch: [], batchMs: [] }), { stepMs: NaN, sequenceMs: NaN });
});
