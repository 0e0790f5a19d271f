import { assert, assertEquals } from "@std/assert";
import { randomValues } from "../attend_partial/test_data.ts";
import { gpuTest, roundBf16 } from "../cuda/test_gpu.ts";
import { swigluReference } from "./reference.ts";
import { SEEDS, TOLERANCE_BF16 } from "./spec.ts";
import { SwigluKernel } from "./swiglu_cuda.ts";

function assertClose(actual: Float32Array, expected: Float32Array, factors: Float32Array): void {
  assertEquals(actual.length, expected.length);
  actual.forEach((value, i) => {
    const tolerance = TOLERANCE_BF16.relative * Math.abs(expected[i]) + TOLERANCE_BF16.absolute * factors[i];
    assert(
      Object.is(value, expected[i]) || Math.abs(value - expected[i]) <= tolerance,
      `y ${i}: wanted ${expected[i]}, got ${value}`,
    );
  });
}

for (const input of ["bf16", "f32"] as const) {
  for (const intermediate of [1, 7, 8, 77, 1536, 14336]) {
    gpuTest(`SwigluKernel.launch() agrees with the reference for ${intermediate} values of ${input}`, (gpu) => {
      const kernel = new SwigluKernel(gpu.kernels, { intermediate, input });
      const tokens = 3;
      for (const scale of [1e-4, 1, 20, 80, 1e4]) {
        const exact = randomValues(tokens * 2 * intermediate, SEEDS.test, scale);
        const gateUp = input === "bf16" ? exact.map(roundBf16) : exact;
        const y = gpu.poisoned(2 * 4 * intermediate);
        kernel.launch(gpu.stream, {
          gateUp: input === "bf16"
            ? gpu.uploadBf16(gateUp, 4 * intermediate)
            : gpu.uploadWithRoom(gateUp, 8 * intermediate),
          count: gpu.word(tokens),
          y,
          tokens: 4,
        });
        const actual = gpu.bf16(y, 4 * intermediate);
        for (let t = 0; t < tokens; t++) {
          const gate = gateUp.slice(2 * t * intermediate, (2 * t + 1) * intermediate);
          const up = gateUp.slice((2 * t + 1) * intermediate, (2 * t + 2) * intermediate);
          const factors = gate.map((g, i) => Math.abs(g * up[i]));
          assertClose(
            actual.subarray(t * intermediate, (t + 1) * intermediate),
            swigluReference({ gate, up }),
            factors,
          );
        }
        assert(actual.subarray(tokens * intermediate).every(Number.isNaN), "rows beyond the count are left alone");
      }
    });
  }
}

gpuTest("SwigluKernel.launch() stays finite at both ends and shows NaN", (gpu) => {
  const gate = Float32Array.of(-1e38, -1000, -88, -87, -0, 0, 87, 88, 1000, 1e38, NaN, 1);
  const up = new Float32Array(12).fill(1);
  up[11] = NaN;
  const kernel = new SwigluKernel(gpu.kernels, { intermediate: 12, input: "f32" });
  const y = gpu.poisoned(24);
  const gateUp = gpu.upload(Float32Array.of(...gate, ...up));
  kernel.launch(gpu.stream, { gateUp, count: gpu.word(1), y, tokens: 1 });
  assertClose(gpu.bf16(y, 12), swigluReference({ gate, up }), gate.map(Math.abs));
});
