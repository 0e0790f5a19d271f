import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { readGolden, storedNumber } from "../attend_partial/golden.ts";
import { randomValues } from "../attend_partial/test_data.ts";
import { openWasm, type WasmRuntime } from "../wasm/instance.ts";
import { mergePartials } from "./launch.ts";
import { mergePartialsReference } from "./reference.ts";
import { type AttentionPartial, SEEDS, segmentNodes, TOLERANCE } from "./spec.ts";

function randomParts(
  count: number,
  options: { rows?: number; width?: number; seed?: number; scale?: number } = {},
): AttentionPartial[] {
  const { rows = 3, width = 5, seed = SEEDS.test, scale = 20 } = options;
  return Array.from({ length: count }, (_, i) => ({
    o: randomValues(rows * width, seed + 2 * i),
    lse: randomValues(rows, seed + 2 * i + 1, scale),
  }));
}

function bits({ o, lse }: AttentionPartial): Uint32Array[] {
  return [new Uint32Array(o.buffer), new Uint32Array(lse.buffer)];
}

for (const back of ["reference", "WASM"] as const) {
  Deno.test(`mergePartials() reproduces the golden merges on the ${back}`, async () => {
    using runtime = await openWasm({ threads: 1 });
    const wasm = back === "WASM" ? runtime : undefined;
    for (const { name, parts, o, lse } of (await readGolden()).merge) {
      const merged = mergePartials(
        parts.map((part) => ({ o: Float32Array.from(part.o), lse: Float32Array.of(storedNumber(part.lse)) })),
        { wasm },
      );
      // Stored numbers have 6 digits; half an ulp of an lse moves the weights by as much.
      const tolerance = 1e-5 +
        6e-8 * Math.max(...parts.map((part) => Math.abs(storedNumber(part.lse))).filter(isFinite), 0);
      merged.o.forEach((value, d) => assertAlmostEquals(value, o[d], tolerance, `${name}: o[${d}]`));
      const expected = storedNumber(lse);
      if (expected === -Infinity) assertEquals(merged.lse[0], expected, name);
      else assertAlmostEquals(merged.lse[0], expected, 6e-6 + 1e-7 * Math.abs(expected), `${name}: lse`);
    }
  });
}

Deno.test("mergePartials() agrees with the reference for any number of parts, rows and widths", async () => {
  using wasm = await openWasm({ threads: 1 });
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 1, max: 5 }),
      fc.integer({ min: 1, max: 19 }),
      fc.constantFrom(0.1, 5, 300),
      fc.nat(1000),
      (count, rows, width, scale, seed) => {
        const parts = randomParts(count, { rows, width, seed, scale });
        const [actual, expected] = [mergePartials(parts, { wasm }), mergePartialsReference(parts)];
        const levels = 1 + Math.ceil(Math.log2(count));
        actual.lse.forEach((value, r) => {
          const reach = Math.max(1, ...parts.map(({ lse }) => Math.abs(lse[r]))) * levels;
          assertAlmostEquals(value, expected.lse[r], TOLERANCE.lse * reach, `lse[${r}]`);
          for (let i = r * width; i < (r + 1) * width; i++) {
            assertAlmostEquals(actual.o[i], expected.o[i], TOLERANCE.o * reach, `o[${r}, ${i % width}]`);
          }
        });
      },
    ),
    { numRuns: 100, seed: SEEDS.test },
  );
});

Deno.test("mergePartials() treats empty parts as the identity, to the bit", async () => {
  using runtime = await openWasm({ threads: 1 });
  const [part] = randomParts(1, { width: 7 });
  const empty = { o: new Float32Array(21), lse: new Float32Array(3).fill(-Infinity) };
  for (const wasm of [undefined, runtime]) {
    for (const parts of [[part], [empty, part], [part, empty], [empty, empty, part, empty]]) {
      assertEquals(bits(mergePartials(parts, { wasm })), bits(part));
    }
    assertEquals(bits(mergePartials([empty, empty, empty], { wasm })), bits(empty));
  }
});

/** Merges leaves the way a cluster does: every holder reduces the nodes of its range, the home finishes the tree. */
function mergeByHolders(wasm: WasmRuntime, leaves: readonly AttentionPartial[], cuts: readonly number[]) {
  const bounds = [0, ...cuts, leaves.length];
  const nodes = bounds.slice(1).flatMap((to, i) => segmentNodes(bounds[i], to));
  const parts = nodes.map(({ first, segments }) => mergePartials(leaves.slice(first, first + segments), { wasm }));
  return mergePartials(parts, { wasm, starts: nodes.map(({ first }) => first) });
}

Deno.test("mergePartials() gives the same bits for any spread of segments over holders", async () => {
  using wasm = await openWasm({ threads: 1 });
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 70 }),
      fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 5 }),
      fc.nat(1000),
      (count, fractions, seed) => {
        const leaves = randomParts(count, { seed });
        const cuts = fractions.map((fraction) => Math.floor(fraction * count)).sort((a, b) => a - b);
        assertEquals(bits(mergeByHolders(wasm, leaves, cuts)), bits(mergePartials(leaves, { wasm })));
      },
    ),
    { numRuns: 100, seed: SEEDS.test },
  );
});

Deno.test("mergePartials() merges in the tree over absolute segments, not in the order of the list", async () => {
  using wasm = await openWasm({ threads: 1 });
  const [a, b, c] = randomParts(3);
  const pair = (x: AttentionPartial, y: AttentionPartial) => mergePartials([x, y], { wasm });
  assertEquals(bits(mergePartials([a, b, c], { wasm })), bits(pair(pair(a, b), c)));
  assertEquals(bits(mergePartials([a, b, c], { wasm, starts: [1, 2, 3] })), bits(pair(a, pair(b, c))));
  assertEquals(bits(mergePartials([a, b, c], { wasm, starts: [0, 4, 6] })), bits(pair(a, pair(b, c))));
});

Deno.test("segmentNodes() returns the fewest whole nodes in order", () => {
  assertEquals(segmentNodes(3, 3), []);
  assertEquals(segmentNodes(1, 8), [
    { first: 1, segments: 1 },
    { first: 2, segments: 2 },
    { first: 4, segments: 4 },
  ]);
  fc.assert(fc.property(fc.nat(5000), fc.nat(5000), (a, b) => {
    const [from, to] = a < b ? [a, b] : [b, a];
    let next = from;
    for (const { first, segments } of segmentNodes(from, to)) {
      assert(first === next && first % segments === 0 && Number.isInteger(Math.log2(segments)));
      next = first + segments;
    }
    assertEquals(next, to);
    assert(segmentNodes(from, to).length <= 2 * Math.ceil(Math.log2(to - from + 2)));
  }));
  assertThrows(() => segmentNodes(2, 1), RangeError, "got [2, 1)");
});

Deno.test("mergePartials() refuses what does not fit, naming it", () => {
  const [a, b] = randomParts(2);
  assertThrows(() => mergePartials([]), RangeError, "at least one part");
  assertThrows(() => mergePartials([a, { ...b, lse: new Float32Array(2) }]), RangeError, "axis R of lse of part 1");
  assertThrows(
    () => mergePartials([a, { ...b, o: new Float32Array(12) }]),
    RangeError,
    "o of part 1 [R, D] with D = 5 holds a multiple of 5, got 12",
  );
  assertThrows(() => mergePartials([a, b], { starts: [1] }), RangeError, "one start for each of 2 parts, got 1");
  assertThrows(() => mergePartials([a, b], { starts: [1, 1] }), RangeError, "got 1 for part 1");
});
