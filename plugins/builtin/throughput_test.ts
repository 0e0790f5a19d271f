import { assertAlmostEquals, assertEquals } from "@std/assert";
import { clusterOf } from "../test_cluster_view.ts";
import { ThroughputModel } from "./throughput.ts";

const model = (...given: Parameters<typeof clusterOf>) => new ThroughputModel(clusterOf(...given), { remoteMs: 0 });

Deno.test("ThroughputModel.gain() counts the tokens a second of waiting requests that freed memory admits", () => {
  const sequences = [{ home: 0, on: [90] }, { home: 0, on: [5] }, { home: 0, on: [5] }];
  const member = { own: 100, running: 3, waiting: 9, times: [10, 2, 0] as const };
  // 10 segments admit 2 more of 5: 5 sequences in 18 ms instead of 3 in 14.
  const gain = model([member, { holder: true }], { sequences }).gain(0, { to: 1, segments: 10 });
  assertAlmostEquals(gain, 5000 / 18 - 3000 / 14, 1e-9);
  const full = model([{ ...member, maxBatch: 4 }, { holder: true }], { sequences }).gain(0, { to: 1, segments: 10 });
  assertAlmostEquals(full, 4000 / 16 - 3000 / 14, 1e-9, "the batch is the limit");
});

Deno.test("ThroughputModel.gain() counts what a creditor can no longer admit, and the attention it does for others", () => {
  const debtor = { own: 50, total: 50, running: 1, times: [10, 0, 0] as const };
  const sequences = [{ home: 0, on: [50] }];
  const crowded = { total: 50, own: 30, running: 2, waiting: 5, times: [10, 0, 0] as const };
  const withTwo = [...sequences, { home: 1, on: [0, 10] }, { home: 1, on: [0, 20] }];
  // 20 free segments are room for two sequences of 10; with 10 lent there is room for one.
  assertAlmostEquals(model([debtor, crowded], { sequences: withTwo }).gain(0, { to: 1, segments: 10 }), -100, 1e-9);
  const attending = { total: 50, running: 1, times: [10, 0, 10] as const };
  // 1,000 tokens for the debtor take 10 ms more of each step; the debtor waits as long as its own step's 10 ms are.
  const gain = model([debtor, attending], { sequences }).gain(0, { to: 1, segments: 10 });
  assertAlmostEquals(gain, 1000 / 20 - 100 + 1000 / 20 - 100, 1e-9);
});

Deno.test("ThroughputModel takes a holder to be as fast as the member it works for", () => {
  const debtor = { own: 50, running: 1, times: [10, 0, 4] as const };
  const sequences = [{ home: 0, on: [50] }];
  // 2,000 of 5,000 tokens elsewhere: 12 ms of attention at home hide the 8 ms there.
  const gain = model([debtor, { holder: true }], { sequences }).gain(0, { to: 1, segments: 20 });
  assertAlmostEquals(gain, 1000 / 22 - 1000 / 30, 1e-9);
});

Deno.test("ThroughputModel.apply() changes use, offer and later gains, gain() nothing", () => {
  const sequences = [{ home: 0, on: [80] }];
  const after = model([{ own: 80, running: 1 }, { holder: true, lendable: 90 }], { sequences });
  const before = after.gain(0, { to: 1, segments: 10 });
  assertEquals(after.gain(0, { to: 1, segments: 10 }), before);
  assertEquals([after.use(0), after.use(1), after.lendable(1)], [0.8, 0, 90]);
  after.apply(0, { to: 1, segments: 40 });
  assertEquals([after.use(0), after.use(1), after.lendable(1)], [0.4, 0.4, 50]);
  // Half of it is elsewhere: whatever more goes there is waited for.
  assertAlmostEquals(after.gain(0, { to: 1, segments: 10 }), 1000 / (10 + 20) - 1000 / (10 + 16), 1e-9);
});
