import { assertEquals, assertNotEquals } from "@std/assert";
import fc from "fast-check";
import { NodeClock } from "./node_clock.ts";
import { VirtualTime } from "./virtual_time.ts";

Deno.test("VirtualTime.step() takes events by time, those of one moment by the order they were scheduled", () => {
  fc.assert(fc.property(fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 40 }), (delays) => {
    const time = new VirtualTime();
    const seen: [number, number][] = [];
    delays.forEach((delay, index) => time.after(delay, "", () => seen.push([time.nowMs, index])));
    while (time.step());
    assertEquals(
      seen,
      delays.map((delay, i): [number, number] => [delay, i]).sort((a, b) => a[0] - b[0] || a[1] - b[1]),
    );
  }));
});

Deno.test("VirtualTime.step() leaves out what was cancelled and what comes later than asked", () => {
  const time = new VirtualTime();
  const seen: string[] = [];
  time.after(1, "a", () => seen.push("a")).cancel();
  time.after(2, "b", () => seen.push("b"));
  time.after(9, "c", () => seen.push("c"));
  assertEquals([time.step(5), time.step(5), time.pending], [true, false, 1]);
  assertEquals([seen, time.nowMs], [["b"], 2]);
});

Deno.test("VirtualTime.hash tells runs apart that differ in one label", () => {
  const hashOf = (labels: string[]) => {
    const time = new VirtualTime();
    labels.forEach((label) => time.after(1, label, () => {}));
    while (time.step());
    return time.hash;
  };
  assertEquals(hashOf(["a", "b"]), hashOf(["a", "b"]));
  assertNotEquals(hashOf(["a", "b"]), hashOf(["b", "a"]));
});

Deno.test("NodeClock holds everything back while paused and drops it when dead", () => {
  const time = new VirtualTime();
  const turn = (run: () => void) => run();
  const clock = new NodeClock(time, { name: "n", skew: { offsetMs: 100, rate: 2 }, turn });
  const seen: string[] = [];
  clock.timer(10, "early", () => seen.push(`early ${clock.nowMs}`));
  const cancelled = clock.timer(10, "cancelled", () => seen.push("cancelled"));
  clock.timer(100, "late", () => seen.push("late"));
  clock.pause();
  while (time.step(20));
  assertEquals(seen, []);
  cancelled.cancel();
  clock.jump(1000);
  clock.resume();
  while (time.step(20));
  assertEquals(seen, ["early 1110"]);
  clock.kill();
  while (time.step());
  assertEquals(seen, ["early 1110"]);
});
