import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { threefry, uniform } from "./random.ts";

Deno.test("threefry() gives the published known answers", () => {
  assertEquals(threefry([0, 0], [0, 0]), [0x6b200159, 0x99ba4efe]);
  assertEquals(threefry([0xffffffff, 0xffffffff], [0xffffffff, 0xffffffff]), [0x1cb996fc, 0xbb002be7]);
  assertEquals(threefry([0x243f6a88, 0x85a308d3], [0x13198a2e, 0x03707344]), [0xc4923a9c, 0x483df7a0]);
});

Deno.test("uniform() depends on every bit of seed and index", () => {
  const values = [0, 1, -1, 2 ** 32, 2 ** 52, Number.MAX_SAFE_INTEGER].flatMap((seed) =>
    [0, 1, 2 ** 32, 2 ** 40].map((index) => uniform(seed, index))
  );
  assertEquals(new Set(values).size, values.length);
  assertNotEquals(uniform(3, 0), uniform(0, 3));
});

Deno.test("uniform() fills [0, 1) evenly", () => {
  const counts = new Array<number>(20).fill(0);
  const draws = 20_000;
  for (let i = 0; i < draws; i++) {
    const value = uniform(7, i);
    assert(value >= 0 && value < 1);
    counts[Math.floor(value * 20)]++;
  }
  const expected = draws / 20;
  const chiSquare = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
  // 19 degrees of freedom: 43.8 is passed by chance once in a thousand seeds; the seed is fixed.
  assert(chiSquare < 43.8, `chi-square ${chiSquare}`);
});
