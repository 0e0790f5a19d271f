import { assert, assertEquals, assertThrows } from "@std/assert";
import { randomValues } from "../attend_partial/test_data.ts";
import { openWasm } from "../wasm/instance.ts";
import { rope } from "./launch.ts";
import { ropeReference } from "./reference.ts";
import { type RopeInput, SEEDS, TOLERANCE } from "./spec.ts";

function frequencies(pairs: number, base = 1e5): Float64Array {
  return Float64Array.from({ length: pairs }, (_, i) => base ** (-i / pairs));
}

for (const pairing of ["adjacent", "halves"] as const) {
  Deno.test(`rope() agrees with the reference for ${pairing} pairs at any size and position`, async () => {
    using wasm = await openWasm({ threads: 1 });
    for (const [heads, headDim, pairs] of [[9, 64, 32], [3, 64, 16], [1, 2, 1], [2, 6, 3], [1, 13, 5], [4, 80, 40]]) {
      for (const magnitude of [1, 1.3862944]) {
        const positions = [0, 1, 2, 8191, 131072, 1e6, 4e9];
        const x = randomValues(positions.length * heads * headDim, SEEDS.test, 4);
        const input: RopeInput = { x, positions, headDim, inverseFrequencies: frequencies(pairs), pairing, magnitude };
        const [actual, expected] = [rope(wasm, input), ropeReference(input)];
        actual.forEach((value, i) => {
          const at = `x[t ${Math.floor(i / heads / headDim)}, h ${Math.floor(i / headDim) % heads}, d ${i % headDim}]`;
          // |a| + |b| is at most 8.
          assert(
            Math.abs(value - expected[i]) <= TOLERANCE * 8 * magnitude,
            `${at} of ${headDim}: wanted ${expected[i]}, got ${value}`,
          );
          if (i % headDim >= 2 * pairs) assertEquals(value, x[i], `${at} is not rotated`);
        });
      }
    }
  });
}

Deno.test("rope() keeps position 0 as it is and the length of every pair", async () => {
  using wasm = await openWasm({ threads: 1 });
  const x = randomValues(64, SEEDS.test);
  const input = { x, headDim: 64, inverseFrequencies: frequencies(32), pairing: "adjacent" } as const;
  assertEquals(rope(wasm, { ...input, positions: [0] }), x);
  const turned = rope(wasm, { ...input, positions: [123456] });
  for (let i = 0; i < 64; i += 2) {
    const [before, after] = [Math.hypot(x[i], x[i + 1]), Math.hypot(turned[i], turned[i + 1])];
    assert(Math.abs(before - after) <= 3e-7, `pair ${i / 2}: length ${before} became ${after}`);
  }
});

Deno.test("rope() refuses what does not fit", async () => {
  using wasm = await openWasm({ threads: 1 });
  const input: RopeInput = {
    x: new Float32Array(16),
    positions: [1, 2],
    headDim: 8,
    inverseFrequencies: frequencies(4),
    pairing: "halves",
  };
  for (const run of [(i: RopeInput) => rope(wasm, i), ropeReference]) {
    assertThrows(() => run({ ...input, x: new Float32Array(15) }), RangeError, "x [T, H, D] with T = 2, D = 8");
    assertThrows(() => run({ ...input, inverseFrequencies: frequencies(5) }), RangeError, "at most D / 2 = 4, got 5");
    assertThrows(() => run({ ...input, positions: [1, -2] }), RangeError, "positions must be integers");
  }
});
