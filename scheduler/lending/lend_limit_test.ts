import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { LendLimit, type LendLimitOptions } from "./lend_limit.ts";

function limitAt(clock: { ms: number }, options: Partial<LendLimitOptions> = {}): LendLimit {
  return new LendLimit({ now: () => clock.ms, windowMs: 1_000, halfLifeMs: 100, ...options });
}

Deno.test("LendLimit.most() lets an idle instance lend nearly everything", () => {
  assertEquals(limitAt({ ms: 0 }).most(320), 310);
  assertEquals(limitAt({ ms: 0 }, { unitBlocks: 16 }).most(64), 64, "a thirty-second of it is less than a segment");
  assertEquals(limitAt({ ms: 0 }, { unitBlocks: 16 }).most(1_024), 1_024 - 32);
});

Deno.test("LendLimit.most() keeps what the instance uses and a quarter more", () => {
  const limit = limitAt({ ms: 0 });
  limit.observe({ own: 40, waitingBlocks: 0 });
  assertEquals(limit.most(100), 50);
  limit.observe({ own: 40, waitingBlocks: 20 });
  assertEquals(limit.most(100), 25);
  limit.observe({ own: 99, waitingBlocks: 0 });
  assertEquals(limit.most(100), 0);
});

Deno.test("LendLimit.most() remembers a peak for the window, then forgets it by halves", () => {
  const clock = { ms: 0 };
  const limit = limitAt(clock);
  limit.observe({ own: 40, waitingBlocks: 0 });
  clock.ms = 5_000;
  assertEquals(limit.most(320), 270, "what is still in use does not age");
  limit.observe({ own: 20, waitingBlocks: 0 });
  clock.ms = 6_000;
  assertEquals(limit.most(320), 270);
  clock.ms = 6_050;
  assert(limit.most(320) > 270 && limit.most(320) < 295, "the peak fades");
  clock.ms = 6_100;
  assertEquals(limit.most(320), 295, "half of it is what is in use");
  limit.observe({ own: 0, waitingBlocks: 0 });
  clock.ms = 9_000;
  assertEquals(limit.most(320), 310);
});

Deno.test("LendLimit.most() keeps a later, smaller peak when an earlier one fades", () => {
  const clock = { ms: 0 };
  const limit = limitAt(clock);
  limit.observe({ own: 100, waitingBlocks: 0 });
  limit.observe({ own: 0, waitingBlocks: 0 });
  clock.ms = 900;
  limit.observe({ own: 80, waitingBlocks: 0 });
  limit.observe({ own: 0, waitingBlocks: 0 });
  clock.ms = 1_900;
  assertEquals(limit.reserve(320), 100);
});

Deno.test("LendLimit.reserve() follows a use that falls in many small steps", () => {
  const clock = { ms: 0 };
  const limit = limitAt(clock, { headroomShare: 0, idleShare: 0, halfLifeMs: 1 });
  for (let own = 400; own >= 0; own--) {
    clock.ms += 5;
    limit.observe({ own, waitingBlocks: 0 });
  }
  const reserve = limit.reserve(400);
  assert(reserve >= 200, `200 blocks were in use within the window, it reserves ${reserve}`);
  assert(reserve <= 220, `what was in use long before is forgotten, it reserves ${reserve}`);
  clock.ms += 10_000;
  assertEquals(limit.reserve(400), 0);
});

Deno.test("LendLimit.reserve() is never below what was in use within the window, nor above what was ever in use", () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ ms: fc.nat(60), own: fc.nat(400) }), { minLength: 1, maxLength: 150, size: "max" }),
      (loads) => {
        const clock = { ms: 0 };
        const limit = limitAt(clock, { headroomShare: 0, idleShare: 0 });
        const seen: { atMs: number; own: number }[] = [];
        for (const { ms, own } of loads) {
          limit.observe({ own, waitingBlocks: 0 });
          clock.ms += ms;
          seen.push({ atMs: clock.ms, own });
          const recent = seen.filter(({ atMs }) => clock.ms - atMs <= 1_000);
          assert(limit.reserve(400) >= Math.max(...recent.map(({ own }) => own)));
          assert(limit.reserve(400) <= Math.max(...seen.map(({ own }) => own)));
        }
      },
    ),
    { numRuns: 50 },
  );
});

Deno.test("LendLimit.most() obeys a cap that is set, whatever the load", () => {
  const blocks = limitAt({ ms: 0 }, { cap: { kind: "blocks", blocks: 30 } });
  const share = limitAt({ ms: 0 }, { cap: { kind: "share", share: 0.5 } });
  for (const limit of [blocks, share]) limit.observe({ own: 90, waitingBlocks: 0 });
  assertEquals([blocks.most(100), blocks.most(20), share.most(101)], [30, 20, 50]);
});

Deno.test("LendLimit.lendable() counts what is away and spares what own sequences wait for", () => {
  const limit = limitAt({ ms: 0 }, { cap: { kind: "blocks", blocks: 30 } });
  assertEquals(limit.lendable({ total: 100, available: 80, lent: 15, quarantined: 5 }), 10);
  assertEquals(limit.lendable({ total: 100, available: 4, lent: 15, quarantined: 5 }), 4);
  limit.observe({ own: 0, waitingBlocks: 3 });
  assertEquals(limit.lendable({ total: 100, available: 4, lent: 15, quarantined: 5 }), 1);
  assertEquals(limit.lendable({ total: 100, available: 2, lent: 30, quarantined: 5 }), 0);
});

Deno.test("LendLimit.wanted() calls back what own sequences wait for and cannot get", () => {
  const limit = limitAt({ ms: 0 });
  assertEquals(limit.wanted({ total: 100, available: 0, lent: 90, quarantined: 0 }), 0);
  limit.observe({ own: 10, waitingBlocks: 20 });
  assertEquals(limit.wanted({ total: 100, available: 0, lent: 90, quarantined: 0 }), 20);
  assertEquals(limit.wanted({ total: 100, available: 5, lent: 75, quarantined: 10 }), 5);
  assertEquals(limit.wanted({ total: 100, available: 5, lent: 3, quarantined: 0 }), 3);
  assertEquals(limit.wanted({ total: 100, available: 20, lent: 70, quarantined: 0 }), 0);
  assertEquals(limit.recallMs, 2_000);
});

Deno.test("LendLimit refuses settings and loads that make no sense", () => {
  const make = (options: Partial<LendLimitOptions>) => () => limitAt({ ms: 0 }, options);
  assertThrows(make({ cap: { kind: "share", share: 1.5 } }), RangeError, "wanted cap.share from 0 to 1, got 1.5");
  assertThrows(make({ cap: { kind: "blocks", blocks: 0.5 } }), RangeError, "wanted cap.blocks a whole number");
  assertThrows(make({ headroomShare: Number.NaN }), RangeError, "headroomShare");
  assertThrows(make({ unitBlocks: 0 }), RangeError, "unitBlocks");
  assertThrows(() => limitAt({ ms: 0 }).observe({ own: -1, waitingBlocks: 0 }), RangeError, "wanted own");
});
