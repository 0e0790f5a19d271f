import { assert, assertEquals } from "@std/assert";
import { randomValues } from "../attend_partial/test_data.ts";
import { gpuTest } from "../cuda/test_gpu.ts";
import { rmsnormReference } from "./reference.ts";
import { RmsnormKernel } from "./rmsnorm_cuda.ts";
import { SEEDS, TOLERANCE_BF16 } from "./spec.ts";

function assertClose(actual: Float32Array, expected: Float32Array, width: number): void {
  assertEquals(actual.length, expected.length);
  actual.forEach((value, i) => {
    assert(
      Math.abs(value - expected[i]) <= TOLERANCE_BF16 * Math.abs(expected[i]) + Number.MIN_VALUE,
      `y[t ${Math.floor(i / width)}, n ${i % width}] of ${width}: wanted ${expected[i]}, got ${value}`,
    );
  });
}

for (const hidden of [1, 31, 32, 576, 1001, 4096, 5120, 8200]) {
  gpuTest(`RmsnormKernel.launch() agrees with the reference for rows of ${hidden}`, (gpu) => {
    const kernel = new RmsnormKernel(gpu.kernels, { hidden, eps: 1e-5 });
    for (const scale of [1e-3, 1, 1e4]) {
      const input = {
        x: randomValues(3 * hidden, SEEDS.test, scale),
        w: randomValues(hidden, SEEDS.test + 1, 2),
        eps: 1e-5,
      };
      const y = gpu.poisoned(2 * 5 * hidden);
      kernel.launch(gpu.stream, {
        x: gpu.upload(input.x),
        inputRows: 3,
        w: gpu.upload(input.w),
        count: gpu.word(3),
        y,
        outputRows: 5,
      });
      const actual = gpu.bf16(y, 5 * hidden);
      assertClose(actual.subarray(0, 3 * hidden), rmsnormReference(input), hidden);
      assert(actual.subarray(3 * hidden).every(Number.isNaN), "rows beyond the count are left alone");
    }
  });
}

gpuTest(
  "RmsnormKernel.launch() gathers rows with the bits they have in place and shows rows that do not exist",
  (gpu) => {
    const hidden = 576;
    const kernel = new RmsnormKernel(gpu.kernels, { hidden, eps: 1e-6 });
    const x = gpu.upload(randomValues(7 * hidden, SEEDS.test));
    const w = gpu.upload(randomValues(hidden, SEEDS.test + 1));
    const [all, some] = [gpu.poisoned(2 * 7 * hidden), gpu.poisoned(2 * 6 * hidden)];
    kernel.launch(gpu.stream, { x, inputRows: 7, w, count: gpu.word(7), y: all, outputRows: 7 });
    const rows = Int32Array.of(6, 0, 3, 7, -1, 3);
    kernel.launch(gpu.stream, {
      x,
      inputRows: 7,
      w,
      rows: gpu.upload(rows),
      count: gpu.word(rows.length),
      y: some,
      outputRows: rows.length,
    });
    const [whole, gathered] = [gpu.bf16(all, 7 * hidden), gpu.bf16(some, 6 * hidden)];
    rows.forEach((row, t) => {
      const actual = gathered.subarray(t * hidden, (t + 1) * hidden);
      if (row >= 0 && row < 7) assertEquals(actual, whole.subarray(row * hidden, (row + 1) * hidden));
      else assert(actual.every(Number.isNaN));
    });
  },
);

gpuTest("RmsnormKernel.launch() of zeros is zero and of NaN is NaN in its row alone", (gpu) => {
  const hidden = 64;
  const kernel = new RmsnormKernel(gpu.kernels, { hidden, eps: 1e-5 });
  const x = new Float32Array(3 * hidden);
  x[hidden + 5] = NaN;
  const y = gpu.poisoned(2 * 3 * hidden);
  kernel.launch(gpu.stream, {
    x: gpu.upload(x),
    inputRows: 3,
    w: gpu.upload(new Float32Array(hidden).fill(1)),
    count: gpu.word(3),
    y,
    outputRows: 3,
  });
  const actual = gpu.bf16(y, 3 * hidden);
  assert(actual.subarray(0, hidden).every((value) => value === 0));
  assert(actual.subarray(hidden, 2 * hidden).every(Number.isNaN));
  assert(actual.subarray(2 * hidden).every((value) => value === 0));
});
