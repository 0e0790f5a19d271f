import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { jointRate, summarize } from "./statistics.ts";

Deno.test("summarize() takes the middle of an odd number of samples", () => {
  assertEquals(summarize([5, 1, 3]), { min: 1, median: 3, max: 5, samples: [5, 1, 3] });
});

Deno.test("summarize() takes the mean of the two middle ones of an even number", () => {
  assertEquals(summarize([10, 2, 4, 100]).median, 7);
});

Deno.test("summarize() refuses no samples and figures that are not finite", () => {
  assertThrows(() => summarize([]), RangeError, "at least one");
  assertThrows(() => summarize([1, NaN]), RangeError, "finite");
});

Deno.test("jointRate() leaves the first token of a single stream out", () => {
  const stream = [{ ms: 500, tokens: 1 }, { ms: 600, tokens: 2 }, { ms: 1500, tokens: 11 }];
  assertAlmostEquals(jointRate([stream]), 10);
});

Deno.test("jointRate() counts only the time when all streams decode", () => {
  const early = [{ ms: 0, tokens: 1 }, { ms: 1000, tokens: 5 }, { ms: 2000, tokens: 9 }];
  const late = [{ ms: 1000, tokens: 1 }, { ms: 2000, tokens: 4 }, { ms: 9000, tokens: 99 }];
  assertAlmostEquals(jointRate([early, late]), (9 - 5) + (4 - 1));
});

Deno.test("jointRate() refuses streams that never decode together", () => {
  const first = [{ ms: 0, tokens: 1 }, { ms: 10, tokens: 2 }];
  const second = [{ ms: 10, tokens: 1 }, { ms: 20, tokens: 2 }];
  assertThrows(() => jointRate([first, second]), RangeError, "when all decode");
  assertThrows(() => jointRate([first, []]), RangeError, "when all decode");
});
