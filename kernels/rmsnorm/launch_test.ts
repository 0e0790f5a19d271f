import { assert, assertEquals, assertThrows } from "@std/assert";
import { randomValues } from "../attend_partial/test_data.ts";
import { openWasm } from "../wasm/instance.ts";
import { rmsnorm } from "./launch.ts";
import { rmsnormReference } from "./reference.ts";
import { SEEDS, TOLERANCE } from "./spec.ts";

Deno.test("rmsnorm() agrees with the reference for every width and scale", async () => {
  using wasm = await openWasm({ threads: 1 });
  for (const width of [1, 2, 3, 4, 5, 15, 16, 17, 31, 576, 1001, 4096]) {
    for (const scale of [1e-3, 1, 1e4]) {
      const input = {
        x: randomValues(3 * width, SEEDS.test, scale),
        w: randomValues(width, SEEDS.test + 1, 2),
        eps: 1e-5,
      };
      const [actual, expected] = [rmsnorm(wasm, input), rmsnormReference(input)];
      actual.forEach((value, i) => {
        assert(
          Math.abs(value - expected[i]) <= TOLERANCE * Math.abs(expected[i]),
          `y[t ${Math.floor(i / width)}, n ${i % width}] of ${width}: wanted ${expected[i]}, got ${value}`,
        );
      });
    }
  }
});

Deno.test("rmsnorm() gives a row the same bits alone and among others", async () => {
  using wasm = await openWasm({ threads: 1 });
  const [x, w] = [randomValues(5 * 99, SEEDS.test), randomValues(99, SEEDS.test + 1)];
  const all = rmsnorm(wasm, { x, w, eps: 1e-6 });
  for (let t = 0; t < 5; t++) {
    assertEquals(rmsnorm(wasm, { x: x.slice(t * 99, (t + 1) * 99), w, eps: 1e-6 }), all.slice(t * 99, (t + 1) * 99));
  }
});

Deno.test("rmsnorm() of zeros is zero", async () => {
  using wasm = await openWasm({ threads: 1 });
  const input = { x: new Float32Array(20), w: randomValues(20, SEEDS.test), eps: 1e-5 };
  for (const y of [rmsnorm(wasm, input), rmsnormReference(input)]) assert(y.every((value) => value === 0));
});

Deno.test("rmsnorm() refuses what does not fit", async () => {
  using wasm = await openWasm({ threads: 1 });
  const input = { x: new Float32Array(20), w: new Float32Array(10), eps: 1e-5 };
  for (const run of [(i: typeof input) => rmsnorm(wasm, i), rmsnormReference]) {
    assertThrows(() => run({ ...input, x: new Float32Array(11) }), RangeError, "x [T, N] with N = 10");
    assertThrows(() => run({ ...input, w: new Float32Array(0) }), RangeError, "axis N must be a positive integer");
    assertThrows(() => run({ ...input, eps: -1 }), RangeError, "eps must be at least 0, got -1");
  }
});
