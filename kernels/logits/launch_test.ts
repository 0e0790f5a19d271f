import { assert, assertEquals, assertThrows } from "@std/assert";
import { randomValues } from "../attend_partial/test_data.ts";
import { openWasm } from "../wasm/instance.ts";
import { summariseLogits } from "./launch.ts";
import { logitsReference } from "./reference.ts";
import { type LogitSummary, SEEDS, TOLERANCE } from "./spec.ts";

/** Candidates exactly: they are copied, not computed. */
function assertSame(actual: LogitSummary, expected: LogitSummary, what: string): void {
  assertEquals(actual.ids, expected.ids, what);
  assertEquals(actual.logits, expected.logits, what);
  const tolerance = TOLERANCE.absolute + TOLERANCE.relative * Math.abs(expected.logSumExp);
  assert(
    Object.is(actual.logSumExp, expected.logSumExp) || Math.abs(actual.logSumExp - expected.logSumExp) <= tolerance,
    `${what}: lse wanted ${expected.logSumExp}, got ${actual.logSumExp}`,
  );
}

Deno.test("summariseLogits() agrees with the reference for every vocabulary size and spread", async () => {
  using wasm = await openWasm({ threads: 1 });
  for (const vocab of [1, 3, 63, 64, 65, 127, 4095, 4096, 4097, 4160, 8195, 32000, 49152]) {
    for (const scale of [0, 0.01, 12, 1e4]) {
      const row = randomValues(vocab, SEEDS.test + vocab, scale);
      assertSame(summariseLogits(wasm, row), logitsReference(row), `${vocab} logits within ${scale}`);
    }
  }
});

Deno.test("summariseLogits() puts equal logits in the order of their ids", async () => {
  using wasm = await openWasm({ threads: 1 });
  const row = randomValues(9000, SEEDS.test, 4).map(Math.round);
  assertSame(summariseLogits(wasm, row), logitsReference(row), "nine different values");
  const zeros = Float32Array.from({ length: 9000 }, (_, i) => i % 2 === 0 ? -0 : 0);
  assertEquals(summariseLogits(wasm, zeros).ids, Int32Array.from({ length: 64 }, (_, i) => i));
});

Deno.test("summariseLogits() finds candidates that crowd into one group", async () => {
  using wasm = await openWasm({ threads: 1 });
  for (const first of [0, 4090, 9000 - 70]) {
    const row = randomValues(9000, SEEDS.test);
    for (let i = 0; i < 70; i++) row[first + i] = 5 + i % 7;
    assertSame(summariseLogits(wasm, row), logitsReference(row), `crowd at ${first}`);
  }
});

Deno.test("summariseLogits() takes infinities and shows NaN in lse alone", async () => {
  using wasm = await openWasm({ threads: 1 });
  const row = randomValues(5000, SEEDS.test).fill(-Infinity, 10, 4980);
  assertSame(summariseLogits(wasm, row), logitsReference(row), "mostly -Infinity");
  const none = new Float32Array(5000).fill(-Infinity);
  assertSame(summariseLogits(wasm, none), logitsReference(none), "all -Infinity");
  row[4990] = NaN;
  row[3] = NaN;
  const { logSumExp, ids } = summariseLogits(wasm, row);
  assertEquals(logSumExp, NaN);
  assertEquals(ids, logitsReference(row).ids);
});

Deno.test("summariseLogits() refuses an empty row", async () => {
  using wasm = await openWasm({ threads: 1 });
  for (const run of [(row: Float32Array) => summariseLogits(wasm, row), logitsReference]) {
    assertThrows(() => run(new Float32Array(0)), RangeError, "axis V must be at least 1, got 0");
  }
});
