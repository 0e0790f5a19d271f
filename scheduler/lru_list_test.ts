import { assertEquals, assertThrows } from "@std/assert";
import { LruList } from "./lru_list.ts";

Deno.test("LruList yields items from the least to the most recently pushed", () => {
  const list = new LruList(5);
  for (const item of [3, 0, 4]) list.push(item);
  list.remove(3);
  list.push(3);
  assertEquals([...list], [0, 4, 3]);
  assertEquals(list.oldest(), 0);
  assertEquals(list.size, 3);
  assertEquals([list.has(3), list.has(1)], [true, false]);
});

Deno.test("LruList.oldest() is undefined once everything is removed", () => {
  const list = new LruList(2);
  list.push(1);
  list.remove(1);
  assertEquals(list.oldest(), undefined);
  assertEquals([...list], []);
});

Deno.test("LruList refuses to add an item twice and to remove one that is outside", () => {
  const list = new LruList(2);
  list.push(1);
  assertThrows(() => list.push(1), RangeError, "Cannot add item 1");
  assertThrows(() => list.remove(0), RangeError, "Cannot remove item 0");
});
