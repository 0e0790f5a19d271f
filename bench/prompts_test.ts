import { assertEquals, assertNotEquals } from "@std/assert";
import { FreshPrompts, readPrompts } from "./prompts.ts";

Deno.test("readPrompts() gives prompts of the lengths the rows name", () => {
  const { short, medium, long, batch } = readPrompts();
  assertEquals([short, medium, long].map(({ ids }) => ids.length), [128, 512, 2000]);
  assertEquals(batch.map((ids) => ids.length), Array(8).fill(128));
  assertEquals(new Set(batch.map((ids) => ids.slice(0, 16).join())).size, 8);
});

Deno.test("FreshPrompts.next() begins each prompt with another first block", () => {
  const fresh = new FreshPrompts(readPrompts().long.ids, 1);
  const prompts = Array.from({ length: 100 }, () => fresh.next());
  assertEquals(prompts.every((ids) => ids.length === 128), true);
  assertEquals(new Set(prompts.map((ids) => ids.slice(0, 16).join())).size, 100);
});

Deno.test("FreshPrompts.next() repeats itself for the same seed alone", () => {
  const { ids } = readPrompts().long;
  assertEquals(new FreshPrompts(ids, 7).next(), new FreshPrompts(ids, 7).next());
  assertNotEquals(new FreshPrompts(ids, 7).next(), new FreshPrompts(ids, 8).next());
});
