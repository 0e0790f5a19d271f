import { assertEquals, assertThrows } from "@std/assert";
import { bf16Bits, gpuTest, type TestGpu } from "../cuda/test_gpu.ts";
import type { CudaPackedType } from "./cuda_layout.ts";
import type { LinearOutput } from "./linear_direct_cuda.ts";
import { PackedLinear } from "./linear_packed_cuda.ts";
import {
  WideLinear,
  type WideSchedule,
  wideSchedule,
  type WideShape,
  wideSharedBytes,
} from "./linear_packed_wide_cuda.ts";
import { checkProduct, storedMatrix, uploadRecords } from "./test_packed_products.ts";
import { linearReference } from "./reference.ts";
import { CUDA_TOLERANCE, SEEDS } from "./spec.ts";
import { randomInputs } from "./test_data.ts";

const TYPES: readonly CudaPackedType[] = ["Q8_0", "Q4_0", "Q4_1"];
const OUTPUTS: readonly LinearOutput[] = ["bf16", "f32", "add", "swiglu"];
/** Rows, columns and tokens: one block, odd ones, long rows, many strips. */
const CASES = [
  [1, 32, 5],
  [1, 32, 64],
  [200, 160, 16],
  [200, 160, 33],
  [77, 96, 64],
  [65, 4192, 17],
  [4300, 64, 7],
] as const;
/** Bytes of shared memory of a block on a GPU of compute capability 9.0. */
const SHARED_BYTES = 232_448;

Deno.test("wideSchedule() fits into shared memory, half of it but for many tokens", () => {
  for (const dtype of TYPES) {
    for (const tokens of [5, 8, 16, 32, 64]) {
      const shape: WideShape = { dtype, rows: 4096, cols: 11008, tokens, output: "add" };
      const schedule = wideSchedule(shape, 132);
      const bytes = wideSharedBytes(shape, schedule);
      assertEquals([bytes <= SHARED_BYTES, schedule.weightSlots >= 2], [true, true], `${dtype}, ${tokens} tokens`);
      if (tokens <= 32) assertEquals(bytes <= SHARED_BYTES / 2, true, `${dtype}, ${tokens} tokens: ${bytes}`);
    }
  }
});

Deno.test("wideSchedule() has no more blocks than chunks of tiles", () => {
  assertEquals(wideSchedule({ dtype: "Q4_0", rows: 16, cols: 64, tokens: 5, output: "f32" }, 132).blocks, 1);
  assertEquals(wideSchedule({ dtype: "Q4_0", rows: 129, cols: 128, tokens: 5, output: "f32" }, 132).blocks, 4);
});

Deno.test("wideSchedule() names what is out of range", () => {
  const shape: WideShape = { dtype: "Q4_0", rows: 64, cols: 64, tokens: 5, output: "bf16" };
  const refuse = (changes: Partial<WideShape>, message: string) =>
    assertThrows(() => wideSchedule({ ...shape, ...changes }, 132), RangeError, message);
  refuse({ tokens: 65 }, "axis M (tokens) must be 1 to 64, got 65");
  refuse({ cols: 48 }, "axis K (cols)");
  refuse({ xStride: 65 }, "xStride");
  refuse({ outStride: 8 }, "outStride");
});

interface Case extends Pick<WideShape, "dtype" | "rows" | "cols" | "tokens" | "output"> {
  readonly schedule?: Partial<WideSchedule>;
}

function run(gpu: TestGpu, { schedule, ...product }: Case): void {
  const { dtype, rows, cols } = product;
  const packing = new PackedLinear(gpu.kernels, gpu.context.properties);
  using linear = new WideLinear(gpu.context, gpu.kernels);
  checkProduct(gpu, packing, {
    ...product,
    // What the kernel multiplies is what the same weights unpack to.
    products: ({ parts, weights, x }) =>
      parts.map((_, i) => {
        const to = gpu.poisoned(2 * rows * cols);
        const half = parts.length === 1 ? undefined : i === 0 ? "first" : "second";
        packing.unpack(gpu.stream, { dtype, rows, cols, from: weights, to, half });
        const unpacked = gpu.bytes(to, 2 * rows * cols);
        const { out, reach } = linearReference({ dtype: "BF16", weights: unpacked, rows, cols, x, activations: "f32" });
        return { out, reach: reach.map((value) => value * CUDA_TOLERANCE[dtype]) };
      }),
    launch: (shape, operands) => {
      const plan = linear.plan(shape, schedule);
      plan.run(gpu.stream, operands);
      gpu.stream.synchronize();
    },
  });
}

for (const dtype of TYPES) {
  for (const output of OUTPUTS) {
    gpuTest(`WidePlan.run() agrees with the reference and writes nothing else: ${dtype}, ${output}`, (gpu) => {
      for (const [rows, cols, tokens] of CASES) run(gpu, { dtype, rows, cols, tokens, output });
    });
  }

  gpuTest(`WidePlan.run() agrees with the reference whatever its schedule: ${dtype}`, (gpu) => {
    const schedules = [{ blocks: 7 }, { warpgroups: 1, weightSlots: 2, inputSlots: 2 }, { pieces: 2, blocks: 5 }];
    for (const schedule of schedules) {
      for (const [rows, cols, tokens] of CASES) run(gpu, { dtype, rows, cols, tokens, output: "add", schedule });
    }
  });

  gpuTest(
    `WidePlan.run() gives the same bits whatever tokens are beside one, from a graph and again: ${dtype}`,
    (gpu) => {
      const packing = new PackedLinear(gpu.kernels, gpu.context.properties);
      using linear = new WideLinear(gpu.context, gpu.kernels);
      const [rows, cols, most] = [300, 4096, 32];
      const weights = uploadRecords(gpu, packing, {
        dtype,
        rows,
        cols,
        parts: [storedMatrix({ dtype, rows, cols, seed: 7 })],
      });
      const x = gpu.upload(Uint16Array.from(randomInputs(most * cols, SEEDS.test), bf16Bits));
      const product = (tokens: number): Float32Array => {
        const out = gpu.poisoned(4 * tokens * rows);
        const plan = linear.plan({ dtype, rows, cols, tokens, output: "f32" });
        using graph = gpu.stream.capture(() => {
          for (let again = 0; again < 3; again++) plan.run(gpu.stream, { weights, x, out, programmatic: again > 0 });
        });
        graph.launch(gpu.stream);
        gpu.stream.synchronize();
        return gpu.f32(out, tokens * rows);
      };
      const all = product(most);
      for (const tokens of [5, 8, 16, 31]) {
        assertEquals(product(tokens), all.slice(0, tokens * rows), `${tokens} of ${most} tokens`);
      }
    },
  );
}
