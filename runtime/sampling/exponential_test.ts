import { assert, assertEquals } from "@std/assert";
import { expOfMinus } from "./exponential.ts";

Deno.test("expOfMinus() agrees with Math.exp to 1e-12", () => {
  for (let x = 0; x < 700; x += x < 1 ? 0.00037 : 0.0371) {
    const expected = Math.exp(-x);
    assert(Math.abs(expOfMinus(x) - expected) <= 1e-12 * expected, `at ${x}`);
  }
});

Deno.test("expOfMinus() underflows to zero and passes NaN on", () => {
  assertEquals([0, 746, 1e300, Infinity].map(expOfMinus), [1, 0, 0, 0]);
  assertEquals(expOfMinus(NaN), NaN);
});
