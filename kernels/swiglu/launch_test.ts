import { assert, assertEquals, assertThrows } from "@std/assert";
import { randomValues } from "../attend_partial/test_data.ts";
import { openWasm } from "../wasm/instance.ts";
import { swiglu } from "./launch.ts";
import { swigluReference } from "./reference.ts";
import { SEEDS, type SwigluInput, TOLERANCE } from "./spec.ts";

function assertClose(actual: Float32Array, expected: Float32Array, { gate, up }: SwigluInput): void {
  assertEquals(actual.length, expected.length);
  actual.forEach((value, i) => {
    const tolerance = TOLERANCE.relative * Math.abs(expected[i]) + TOLERANCE.absolute * Math.abs(gate[i] * up[i]);
    assert(
      Math.abs(value - expected[i]) <= tolerance,
      `silu(${gate[i]}) * ${up[i]}: wanted ${expected[i]}, got ${value}`,
    );
  });
}

Deno.test("swiglu() agrees with the reference for every length and magnitude", async () => {
  using wasm = await openWasm({ threads: 1 });
  for (const length of [0, 1, 2, 3, 4, 5, 7, 8, 1536, 4099]) {
    for (const scale of [1e-4, 1, 20, 80, 1e4]) {
      const input = { gate: randomValues(length, SEEDS.test, scale), up: randomValues(length, SEEDS.test + 1, 3) };
      assertClose(swiglu(wasm, input), swigluReference(input), input);
    }
  }
});

Deno.test("swiglu() stays finite at both ends and shows NaN", async () => {
  using wasm = await openWasm({ threads: 1 });
  const gate = Float32Array.of(-1e38, -1000, -88, -87, -0, 0, 87, 88, 1000, 1e38);
  const input = { gate, up: new Float32Array(10).fill(1) };
  assertClose(swiglu(wasm, input), swigluReference(input), input);
  const broken = swiglu(wasm, { gate: Float32Array.of(NaN, 1), up: Float32Array.of(1, NaN) });
  assert(broken.every(Number.isNaN));
});

Deno.test("swiglu() refuses arrays of different lengths", async () => {
  using wasm = await openWasm({ threads: 1 });
  const input = { gate: new Float32Array(4), up: new Float32Array(5) };
  for (const run of [(i: SwigluInput) => swiglu(wasm, i), swigluReference]) {
    assertThrows(() => run(input), RangeError, "axis N of up [N] must be 4, got 5");
  }
});
