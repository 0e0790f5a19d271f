import { assertEquals, assertThrows } from "@std/assert";
import { DEFAULT_LIMITS, resolveLimits } from "./limits.ts";

Deno.test("resolveLimits() keeps the defaults beside what changes", () => {
  assertEquals(resolveLimits({ choices: 3 }), { ...DEFAULT_LIMITS, choices: 3 });
});

Deno.test("resolveLimits() refuses limits that bound nothing", () => {
  for (const value of [0, -1, 1.5, NaN, Infinity]) {
    assertThrows(() => resolveLimits({ bodyBytes: value }), RangeError, `bodyBytes: wanted a positive integer`);
  }
});
