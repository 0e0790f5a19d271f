import { assertEquals, assertThrows } from "@std/assert";
import { bf16Bits, gpuTest, roundBf16, type TestGpu } from "../cuda/test_gpu.ts";
import { type CudaPackedType, tilePacked, tilePair } from "./cuda_layout.ts";
import type { LinearOutput } from "./linear_direct_cuda.ts";
import {
  PackedLinear,
  type PackedSchedule,
  packedSchedule,
  type PackedShape,
  packedSharedBytes,
} from "./linear_packed_cuda.ts";
import { checkProduct, storedMatrix, uploadRecords } from "./test_packed_products.ts";
import { linearReference } from "./reference.ts";
import { CUDA_TOLERANCE, SEEDS } from "./spec.ts";
import { randomInputs } from "./test_data.ts";

const TYPES: readonly CudaPackedType[] = ["Q8_0", "Q4_0", "Q4_1"];
const OUTPUTS: readonly LinearOutput[] = ["bf16", "f32", "add", "swiglu"];
/** Rows and columns: one block, odd ones, long rows, many strips. */
const SHAPES = [[1, 32], [200, 160], [77, 96], [65, 4192], [4300, 64]] as const;
const SCHEDULES: readonly Partial<PackedSchedule>[] = [
  { warps: 4, stages: 2, piece: 1, slots: 1, resident: 2 },
  { warps: 8, stages: 4, piece: 4, resident: 2 },
  { warps: 16, stages: 3, piece: 2, resident: 1 },
];
/** Columns of a block: they share the scale of x. */
const BLOCK = 32;
/** Error of an input as a share of the largest of its block: half a step of 1 / 32512, and the rounding of that scale. */
const INPUT_ERROR = 1.6e-5;

Deno.test("packedSchedule() sums in one order for all tokens", () => {
  for (const dtype of TYPES) {
    for (const [rows, cols] of [[1, 32], [960, 576], [4096, 14336], [128256, 4096]]) {
      const warps = [1, 2, 3, 4].map((tokens) =>
        packedSchedule({ dtype, rows, cols, tokens, output: "add" }, 132).warps
      );
      assertEquals(new Set(warps).size, 1);
    }
  }
});

Deno.test("packedSchedule() names what is out of range", () => {
  const shape: PackedShape = { dtype: "Q4_0", rows: 64, cols: 64, tokens: 1, output: "bf16" };
  const refuse = (changes: Partial<PackedShape>, message: string) =>
    assertThrows(() => packedSchedule({ ...shape, ...changes }, 132), RangeError, message);
  refuse({ tokens: 5 }, "axis M (tokens) must be 1 to 4, got 5");
  refuse({ cols: 48 }, "axis K (cols)");
  refuse({ xStride: 65 }, "xStride");
  refuse({ outStride: 8 }, "outStride");
});

Deno.test("packedSharedBytes() grows with columns and tokens", () => {
  const shape = { dtype: "Q4_0", rows: 4096, cols: 11008, tokens: 4, output: "add" } as const;
  const schedule = { room: 4, warps: 16, stages: 2, piece: 4, slots: 2, resident: 1, blocks: 132 };
  const inputs = 172 * 4 * 136, sums = 4 * 4 * (2 * 16 * 16 + 17);
  assertEquals(packedSharedBytes(shape, schedule), 8 * (16 * 2 + 4) + 16 * 2 * 4 * 576 + inputs + sums);
});

interface Case extends Pick<PackedShape, "dtype" | "rows" | "cols" | "tokens" | "output" | "norm"> {
  readonly schedule?: Partial<PackedSchedule>;
}

/** Every input replaced by the largest magnitude of its block. */
function largestOfBlocks(x: Float32Array): Float32Array<ArrayBuffer> {
  return Float32Array.from(x, (_, i) => {
    const first = Math.floor(i / BLOCK) * BLOCK;
    return x.subarray(first, first + BLOCK).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  });
}

function run(gpu: TestGpu, { schedule, ...product }: Case): void {
  const { dtype, norm } = product;
  const linear = new PackedLinear(gpu.kernels, gpu.context.properties);
  checkProduct(gpu, linear, {
    ...product,
    // Weights are exact, inputs a share of the largest of their block.
    products: ({ parts, x }) =>
      parts.map((weights) => {
        const matrix = { dtype, weights, rows: product.rows, cols: product.cols, activations: "f32" } as const;
        const { out, reach } = linearReference({ ...matrix, x });
        const widest = linearReference({ ...matrix, x: largestOfBlocks(x) }).reach;
        return { out, reach: reach.map((value, i) => value * CUDA_TOLERANCE[dtype] + widest[i] * INPUT_ERROR) };
      }),
    launch: (shape, operands) => linear.plan({ ...shape, norm }, schedule).run(gpu.stream, operands),
  });
}

for (const dtype of TYPES) {
  gpuTest(`PackedLinear.pack() makes the records of the reference, of whole matrices and of parts: ${dtype}`, (gpu) => {
    const linear = new PackedLinear(gpu.kernels, gpu.context.properties);
    for (const [rows, cols] of [[1, 32], [64, 64], [77, 160], [130, 96]]) {
      const shape = { dtype, rows, cols };
      const parts = [SEEDS.test, SEEDS.bench].map((seed) => storedMatrix({ dtype, rows, cols, seed }));
      const alone = uploadRecords(gpu, linear, { ...shape, parts: [parts[0]] });
      const expected = tilePacked(parts[0], shape);
      assertEquals(gpu.bytes(alone, expected.length), expected, `${rows} x ${cols}`);
      const expectedPair = tilePair({ first: parts[0], second: parts[1] }, shape);
      const pair = uploadRecords(gpu, linear, { ...shape, parts });
      assertEquals(gpu.bytes(pair, expectedPair.length), expectedPair, `pair of ${rows} x ${cols}`);
      const cut = Math.floor(rows / 2);
      if (cut === 0) continue;
      const to = gpu.zeroed(expected.length);
      const at = cut * parts[0].length / rows;
      linear.pack(gpu.stream, { ...shape, rows: cut, from: gpu.upload(parts[0].subarray(0, at)), to });
      linear.pack(gpu.stream, { ...shape, rows: rows - cut, first: cut, from: gpu.upload(parts[0].subarray(at)), to });
      assertEquals(gpu.bytes(to, expected.length), expected, `${rows} x ${cols} in two parts`);
    }
  });

  gpuTest(`PackedLinear.unpack() gives each weight rounded to bf16: ${dtype}`, (gpu) => {
    const linear = new PackedLinear(gpu.kernels, gpu.context.properties);
    const [rows, cols] = [77, 160];
    const parts = [SEEDS.test, SEEDS.bench].map((seed) => storedMatrix({ dtype, rows, cols, seed }));
    const from = uploadRecords(gpu, linear, { dtype, rows, cols, parts });
    for (const [i, half] of (["first", "second"] as const).entries()) {
      const to = gpu.poisoned(2 * rows * cols);
      linear.unpack(gpu.stream, { dtype, rows, cols, from, to, half });
      const values = gpu.bf16(to, rows * cols);
      for (let k = 0; k < cols; k += 7) {
        const x = new Float32Array(cols);
        x[k] = 1;
        const { out } = linearReference({ dtype, weights: parts[i], rows, cols, x, activations: "f32" });
        for (let r = 0; r < rows; r++) {
          // Signs of zeros may differ.
          assertEquals(values[r * cols + k] + 0, roundBf16(Math.fround(out[r])) + 0, `${half} [n ${r}, k ${k}]`);
        }
      }
    }
  });

  for (const output of OUTPUTS) {
    gpuTest(`PackedPlan.run() agrees with the reference and writes nothing else: ${dtype}, ${output}`, (gpu) => {
      for (const [rows, cols] of SHAPES) {
        for (const tokens of [1, 2, 3, 4]) run(gpu, { dtype, rows, cols, tokens, output });
      }
    });
  }

  gpuTest(`PackedPlan.run() normalises its inputs: ${dtype}`, (gpu) => {
    for (const [rows, cols] of SHAPES) {
      for (const tokens of [1, 3]) {
        for (const output of ["bf16", "swiglu"] as const) {
          run(gpu, { dtype, rows, cols, tokens, output, norm: { epsilon: 1e-5 } });
        }
      }
    }
  });

  gpuTest(`PackedPlan.run() agrees with the reference whatever its schedule: ${dtype}`, (gpu) => {
    for (const schedule of SCHEDULES) {
      for (const [rows, cols] of SHAPES) {
        run(gpu, { dtype, rows, cols, tokens: 2, output: "add", schedule: { ...schedule, blocks: 3 } });
      }
    }
  });

  gpuTest(`PackedPlan.run() gives the same bits whatever tokens are beside one, from a graph: ${dtype}`, (gpu) => {
    const linear = new PackedLinear(gpu.kernels, gpu.context.properties);
    const [rows, cols, most] = [5000, 4096, 4];
    const weights = uploadRecords(gpu, linear, {
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
    for (const tokens of [1, 2, 3]) {
      assertEquals(product(tokens), all.slice(0, tokens * rows), `${tokens} of ${most} tokens`);
    }
  });
}
