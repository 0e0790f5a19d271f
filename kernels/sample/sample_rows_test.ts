import { assertEquals, assertThrows } from "@std/assert";
import { SAMPLE_ROW_BYTES, writeSampleRow } from "./sample_rows.ts";
import type { SampleMode, SampleRow } from "./spec.ts";

const DRAW: SampleMode & { kind: "draw" } = {
  kind: "draw",
  inverseTemperature: 1.25,
  topK: 40,
  topP: 0.9,
  depth: 3,
  seed: 2 ** 40 + 5,
};

function written(row: SampleRow): DataView {
  const bytes = new Uint8Array(SAMPLE_ROW_BYTES).fill(0xaa);
  writeSampleRow(bytes, row);
  return new DataView(bytes.buffer);
}

Deno.test("writeSampleRow() puts every field in its place", () => {
  const view = written({ mode: DRAW, accepted: 2 ** 33 + 1, slot: 7, tag: 0xdeadbeef });
  assertEquals([view.getUint32(0, true), view.getUint32(4, true)], [1, 40]);
  assertEquals([8, 16, 24].map((at) => view.getFloat64(at, true)), [1.25, 0.9, 3]);
  assertEquals([view.getUint32(32, true), view.getUint32(36, true)], [5, 256]);
  assertEquals(view.getBigUint64(40, true), 2n ** 33n + 1n);
  assertEquals([view.getInt32(48, true), view.getUint32(52, true), view.getBigUint64(56, true)], [7, 0xdeadbeef, 0n]);
});

Deno.test("writeSampleRow() marks what keeps all tokens, goes nowhere or is not for the kernel", () => {
  const view = written({ mode: { ...DRAW, topK: Infinity, depth: Infinity, seed: -1 }, accepted: 0 });
  assertEquals([view.getUint32(4, true), view.getFloat64(24, true)], [0xffffffff, Infinity]);
  assertEquals(view.getBigInt64(32, true), -1n);
  assertEquals(view.getInt32(48, true), -1);
  assertEquals(written({ mode: { kind: "greedy" }, accepted: 0 }).getUint32(0, true), 0);
  assertEquals(written({ mode: { kind: "host" }, accepted: 0 }).getUint32(0, true), 2);
});

Deno.test("writeSampleRow() refuses what the kernel could not sample", () => {
  const refused = (mode: Partial<typeof DRAW>, message: string) =>
    assertThrows(() => written({ mode: { ...DRAW, ...mode }, accepted: 0 }), RangeError, message);
  refused({ topK: 0 }, "topK must be 1 or more, got 0");
  refused({ topK: 2.5 }, "topK must be 1 or more, got 2.5");
  refused({ inverseTemperature: Infinity }, "inverseTemperature must be positive and finite, got Infinity");
  refused({ seed: 0.5 }, "seed must be an integer of up to 53 bits, got 0.5");
  assertThrows(
    () => writeSampleRow(new Uint8Array(63), { mode: DRAW, accepted: 0 }),
    RangeError,
    "wanted 64 bytes, got 63",
  );
});
