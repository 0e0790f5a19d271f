import { assertEquals, assertThrows } from "@std/assert";
import { SampleRing, sampleRingBytes } from "./sample_ring.ts";

const SIZE = { slots: 4, rows: 3 };
const SLOT_BYTES = 64 + 3 * 16;

/** Writes a step as the kernel does. */
function publish(
  memory: ArrayBuffer,
  step: number,
  results: readonly (readonly [number, number, number, number])[],
): void {
  const view = new DataView(memory, step % SIZE.slots * SLOT_BYTES, SLOT_BYTES);
  results.forEach(([id, logit, lse, tag], row) => {
    view.setInt32(64 + 16 * row, id, true);
    view.setFloat32(68 + 16 * row, logit, true);
    view.setFloat32(72 + 16 * row, lse, true);
    view.setUint32(76 + 16 * row, tag, true);
  });
  view.setUint32(4, results.length, true);
  view.setUint32(0, step, true);
}

Deno.test("SampleRing reads the results of a step once its number is there", () => {
  const memory = new ArrayBuffer(sampleRingBytes(SIZE) + 8);
  const ring = new SampleRing(memory, SIZE);
  assertEquals(ring.has(6), false);
  publish(memory, 6, [[42, 1.5, 2.5, 0xffffffff], [-1, 0, 3, 1], [-3, 0, 4, 2]]);
  assertEquals([ring.has(6), ring.has(2), ring.has(5)], [true, false, false]);
  assertEquals(ring.rows(6), 3);
  assertEquals(ring.result(6, 0), {
    outcome: { kind: "chosen", id: 42, logit: 1.5 },
    logSumExp: 2.5,
    tag: 0xffffffff,
  });
  assertEquals(ring.result(6, 1), { outcome: { kind: "undecided" }, logSumExp: 3, tag: 1 });
  assertEquals(ring.result(6, 2), { outcome: { kind: "host" }, logSumExp: 4, tag: 2 });
  publish(memory, 7, [[-2, 0, NaN, 9]]);
  assertEquals(ring.result(7, 0), { outcome: { kind: "bad logits" }, logSumExp: NaN, tag: 9 });
  publish(memory, 10, [[5, 0, 0, 0]]);
  assertEquals([ring.has(6), ring.has(10), ring.has(7)], [false, true, true]);
});

Deno.test("SampleRing counts steps beyond 2^31", () => {
  const memory = new ArrayBuffer(sampleRingBytes(SIZE));
  const ring = new SampleRing(memory, SIZE);
  publish(memory, 2 ** 32 - 1, [[1, 0, 0, 0]]);
  assertEquals([ring.has(2 ** 32 - 1), ring.has(2 ** 31 - 1)], [true, false]);
});

Deno.test("SampleRing refuses memory that is too small", () => {
  assertThrows(() => new SampleRing(new ArrayBuffer(8), SIZE), RangeError, `wanted ${4 * SLOT_BYTES} bytes, got 8`);
});
