import { assertEquals, assertThrows } from "@std/assert";
import { quantile } from "./quantile.ts";

Deno.test("quantile() takes the nearest rank, whatever the order", () => {
  const samples = [3, 1, 100, 2];
  assertEquals([0, 0.25, 0.5, 0.75, 0.99, 1].map((share) => quantile(samples, share)), [1, 1, 2, 3, 100, 100]);
  assertEquals(samples, [3, 1, 100, 2]);
});

Deno.test("quantile() refuses no samples", () => {
  assertThrows(() => quantile([], 0.5), RangeError, "at least one");
});
