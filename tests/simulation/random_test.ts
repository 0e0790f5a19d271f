import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { Random } from "./random.ts";

Deno.test("Random.stream() does not depend on what was drawn before", () => {
  const fresh = new Random(7);
  const used = new Random(7);
  used.bits();
  assertEquals(fresh.stream("faults").bits(), used.stream("faults").bits());
  assertNotEquals(fresh.stream("faults").bits(), fresh.stream("work").bits());
  assertNotEquals(new Random(7).stream("faults").bits(), new Random(8).stream("faults").bits());
});

Deno.test("Random.integer() reaches both ends and nothing else", () => {
  const random = new Random(1);
  const seen = new Set(Array.from({ length: 200 }, () => random.integer(2, 5)));
  assertEquals([...seen].sort(), [2, 3, 4, 5]);
});

Deno.test("Random.unit() is uniform", () => {
  const random = new Random(3);
  const buckets = new Array<number>(10).fill(0);
  for (let i = 0; i < 10_000; i++) buckets[Math.floor(random.unit() * 10)]++;
  assert(buckets.every((count) => count > 850 && count < 1150), buckets.join(" "));
});

Deno.test("Random.shuffle() keeps every item and leaves its input alone", () => {
  const items = [1, 2, 3, 4, 5, 6];
  assertEquals(new Random(5).shuffle(items).toSorted(), items);
  assertEquals(items, [1, 2, 3, 4, 5, 6]);
  assertThrows(() => new Random(5).pick([]), RangeError, "at least one item");
});
