import { assertEquals, assertThrows } from "@std/assert";
import { Axes } from "./axes.ts";

Deno.test("Axes.match() finds the size of an open axis and holds the next tensor to it", () => {
  const axes = new Axes("test", { D: 4 });
  axes.match("k", 12, ["L", "D"]);
  assertEquals(axes.size("L"), 3);
  axes.match("v", 12, ["L", "D"]);
  assertThrows(() => axes.match("w", 16, ["L", "D"]), RangeError, "Cannot test: axis L of w [L, D] must be 3, got 4");
});

Deno.test("Axes.match() takes an empty tensor and refuses a broken one", () => {
  const axes = new Axes("test", { D: 4 });
  axes.match("k", 0, ["L", "D"]);
  assertEquals(axes.size("L"), 0);
  assertThrows(
    () => new Axes("test", { D: 4 }).match("k", 13, ["L", "D"]),
    RangeError,
    "Cannot test: k [L, D] with D = 4 holds a multiple of 4, got 13 values",
  );
});

Deno.test("Axes refuses sizes that are not positive integers and axes it does not know", () => {
  assertThrows(() => new Axes("test", { D: 0 }), RangeError, "axis D must be a positive integer, got 0");
  assertThrows(() => new Axes("test", { D: 1.5 }), RangeError, "got 1.5");
  assertThrows(() => new Axes("test", {}).size("L"), RangeError, "axis L has no size yet");
});
