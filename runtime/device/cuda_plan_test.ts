import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { bucketCapacity, decodeBucket, isDecode, LARGEST_BUCKET, productRows } from "./cuda_buckets.ts";
import { planPlaces, writePlan } from "./cuda_plan.ts";
import { TableMirror, tableSizeFor } from "./cuda_tables.ts";
import type { StepSequence } from "./device.ts";

function sequence(position: number, tokens: number, parts: Partial<StepSequence> = {}): StepSequence {
  const blocks = Array.from({ length: Math.ceil((position + tokens) / 64) }, (_, i) => 7 * i + position % 5);
  return { tokens: Array.from({ length: tokens }, (_, i) => 100 + i), position, blocks, logits: "last", ...parts };
}

Deno.test("planPlaces() gives every part its own words, at multiples of 16 bytes", () => {
  const size = fc.integer({ min: 0, max: 70 });
  fc.assert(fc.property(size, size, size, size, size, (tokens, sequences, rows, patches, extra) => {
    const { words, ...places } = planPlaces({ tokens, sequences, rows, patches, extra });
    const parts = [
      [places.tokens, tokens],
      [places.positions, tokens],
      [places.tables, tokens],
      [places.lengths, sequences],
      [places.starts, sequences + 1],
      [places.rows, rows],
      [places.patches, 2 * patches],
      [places.extra, extra],
    ];
    let end = Math.max(places.step, places.tokenCount, places.sequenceCount, places.rowCount, places.patchCount) + 1;
    for (const [at, length] of parts) {
      assert(at >= end && at % 4 === 0);
      end = at + length;
    }
    assert(words >= end);
  }));
});

Deno.test("writePlan() writes tokens, positions, tables, lengths and rows in batch order, and padding behind them", () => {
  const batch = [sequence(62, 3, { logits: "all" }), sequence(5, 2, { logits: "none" }), sequence(128, 1)];
  const capacity = { tokens: 8, sequences: 4, rows: 6, patches: 3, extra: 2 };
  const places = planPlaces(capacity);
  const words = new Int32Array(places.words).fill(99);
  const [patches, extra] = [Int32Array.of(4, 40, 9, 90), Int32Array.of(-5, 6)];
  writePlan(words, { step: 17, batch, patches, extra }, capacity);
  const part = (at: number, length: number) => [...words.subarray(at, at + length)];
  assertEquals(part(places.tokens, 8), [100, 101, 102, 100, 101, 100, 0, 0]);
  assertEquals(part(places.positions, 8), [62, 63, 64, 5, 6, 128, 0, 0]);
  assertEquals(part(places.tables, 8), [0, 0, 0, 1, 1, 2, -1, -1]);
  assertEquals(part(places.lengths, 4), [65, 7, 129, 0]);
  assertEquals(part(places.starts, 5), [0, 3, 5, 6, 6]);
  assertEquals(part(places.rows, 6), [0, 1, 2, 5, 0, 0]);
  assertEquals(part(places.patches, 4), [4, 40, 9, 90]);
  assertEquals(part(places.extra, 2), [-5, 6]);
  const { step, tokenCount, sequenceCount, rowCount, patchCount } = places;
  assertEquals([step, tokenCount, sequenceCount, rowCount, patchCount].map((at) => words[at]), [17, 6, 3, 4, 2]);
});

Deno.test("TableMirror.update() sends what differs, so that tables hold every block of the batch that is here", () => {
  const block = fc.integer({ min: 0, max: 9 });
  const row = fc.record({
    position: fc.integer({ min: 1, max: 1500 }),
    blocks: fc.array(block, { minLength: 24, maxLength: 24 }),
    absent: fc.boolean(),
  });
  fc.assert(fc.property(fc.array(fc.array(row, { maxLength: 4 }), { maxLength: 6 }), (steps) => {
    const size = { rows: 4, width: 24 };
    const mirror = new TableMirror(size);
    const device = new Int32Array(size.rows * size.width).fill(-7);
    for (const rows of steps) {
      const batch = rows.map(({ position, blocks, absent }) => {
        const gap = absent && position >= 512 ? [{ from: 1, to: 2 }] : [];
        return sequence(position, 1, {
          blocks: blocks.map((b, i) => gap.length > 0 && i >= 4 && i < 8 ? NaN : b),
          absent: gap,
        });
      });
      const patches = mirror.update(batch);
      for (let i = 0; i < patches.length; i += 2) device[patches[i]] = patches[i + 1];
      batch.forEach(({ position, blocks }, index) => {
        for (let i = 0; i < Math.ceil((position + 1) / 64); i++) {
          if (!Number.isNaN(blocks[i])) assertEquals(device[index * size.width + i], blocks[i]);
        }
      });
      assertEquals(mirror.update(batch).length, 0);
    }
  }));
});

Deno.test("TableMirror.update() sends one entry when a sequence begins a block", () => {
  const mirror = new TableMirror({ rows: 2, width: 4 });
  const blocks = [5, 6, 7, 8];
  assertEquals([...mirror.update([sequence(63, 1, { blocks })])], [0, 5]);
  assertEquals([...mirror.update([sequence(64, 1, { blocks })])], [1, 6]);
  assertEquals([...mirror.update([sequence(65, 1, { blocks })])], []);
});

Deno.test("tableSizeFor() keeps sizes that hold the batch and doubles those that do not", () => {
  const size = { rows: 2, width: 4 };
  assertEquals(tableSizeFor([sequence(0, 256)], size), size);
  assertEquals(tableSizeFor([sequence(0, 257)], size), { rows: 2, width: 8 });
  assertEquals(tableSizeFor([sequence(0, 1), sequence(0, 1), sequence(0, 1)], size), { rows: 4, width: 4 });
});

Deno.test("decodeBucket() takes the smallest that holds the sequences and that steps may have", () => {
  assertEquals([1, 2, 3, 5, 64, 65, 256, 257].map((n) => decodeBucket(n, LARGEST_BUCKET)), [
    1,
    2,
    4,
    8,
    64,
    128,
    256,
    undefined,
  ]);
  assertEquals(decodeBucket(33, 48), undefined);
  assertEquals(decodeBucket(32, 48), 32);
  assertEquals(bucketCapacity(8), { tokens: 8, sequences: 8, rows: 8, patches: 96 });
});

Deno.test("isDecode() wants one token a sequence and every segment here", () => {
  assert(isDecode([sequence(3, 1), sequence(9, 1, { logits: "none" })]));
  assert(!isDecode([sequence(3, 1), sequence(9, 2)]));
  assert(!isDecode([sequence(512, 1, { absent: [{ from: 0, to: 1 }] })]));
});

Deno.test("productRows() rounds up to few sizes", () => {
  assertEquals([1, 3, 33, 256, 257, 512, 8192].map(productRows), [1, 4, 64, 256, 512, 512, 8192]);
});
