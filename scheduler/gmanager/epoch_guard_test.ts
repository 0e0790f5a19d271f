import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import type { MemberIdentity } from "../protocol/member.ts";
import { EpochGuard, MAX_EPOCH } from "./epoch_guard.ts";

function manager(run: number): MemberIdentity {
  return { name: `g${run}`, incarnation: run.toString(16).padStart(32, "0") };
}

Deno.test("EpochGuard.order() refuses a lower epoch than the highest seen", () => {
  const guard = new EpochGuard(3);
  assertEquals(guard.order(4, manager(1)), undefined);
  guard.see(6);
  const refused = guard.order(5, manager(1));
  assertEquals(refused?.code, "stale_epoch");
  assertEquals(refused?.detail, "wanted epoch 6 or later, got 5");
  assertEquals(guard.highest, 6);
  assertEquals(guard.leader, undefined, "nobody has given an order in epoch 6");
});

Deno.test("EpochGuard.order() obeys the greater incarnation of two with the same epoch", () => {
  const guard = new EpochGuard();
  assertEquals(guard.order(1, manager(1)), undefined);
  assertEquals(guard.order(1, manager(2)), undefined);
  assertEquals(guard.order(1, manager(1))?.code, "stale_epoch");
  assertEquals(guard.leader, manager(2));
  assertEquals(guard.order(2, manager(1)), undefined);
});

Deno.test("EpochGuard.check() refuses what is no epoch and learns nothing from it", () => {
  const guard = new EpochGuard(5);
  for (const epoch of [-1, 0.5, Number.NaN, Infinity, MAX_EPOCH + 1]) {
    assertEquals(guard.check(epoch)?.code, "bad_shape");
    assertEquals(guard.see(epoch), false);
  }
  assertEquals(guard.highest, 5);
  assertThrows(() => new EpochGuard(-1), RangeError, "got -1");
});

Deno.test("EpochGuard.highest never goes down, and only orders of the highest epoch pass", () => {
  const step = fc.record({ epoch: fc.nat(20), from: fc.nat(3), order: fc.boolean() });
  fc.assert(fc.property(fc.array(step), (steps) => {
    const guard = new EpochGuard();
    let highest = 0;
    for (const { epoch, from, order } of steps) {
      if (order) {
        const passed = guard.order(epoch, manager(from)) === undefined;
        assert(!passed || epoch >= highest);
      } else {
        assertEquals(guard.see(epoch), epoch > highest);
      }
      highest = Math.max(highest, epoch);
      assertEquals(guard.highest, highest);
    }
  }));
});
