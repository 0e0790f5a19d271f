import { assert, assertEquals, assertThrows } from "@std/assert";
import type { DevicePtr } from "../../ffi/cuda/cuda.ts";
import { bf16Bits, gpuTest, roundBf16, type TestGpu } from "../cuda/test_gpu.ts";
import { tensorBytes } from "../dtype.ts";
import { cudaMatrixBytes, type CudaPackedType, cudaPairBytes, tilePacked, tilePair } from "./cuda_layout.ts";
import type { LinearOutput } from "./linear_direct_cuda.ts";
import {
  PackedLinear,
  type PackedSchedule,
  packedSchedule,
  type PackedShape,
  packedSharedBytes,
} from "./linear_packed_cuda.ts";
import { linearReference } from "./reference.ts";
import { CUDA_TOLERANCE, SEEDS } from "./spec.ts";
import { randomInputs, randomWeights } from "./test_data.ts";

const TYPES: readonly CudaPackedType[] = ["Q8_0", "Q4_0", "Q4_1"];
const OUTPUTS: readonly LinearOutput[] = ["bf16", "f32", "add", "swiglu"];
/** Columns of NaN behind every row of x. */
const X_PADDING = 8;
/** Untouched columns behind every row of the output. */
const OUT_PADDING = 3;
/** Rows and columns: one block, odd ones, long rows, many strips. */
const SHAPES = [[1, 32], [200, 160], [77, 96], [65, 4192], [4300, 64]] as const;
const SCHEDULES: readonly Partial<PackedSchedule>[] = [
  { warps: 8, ahead: 3, stages: 0, resident: 2 },
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
  const bytes = packedSharedBytes(shape, packedSchedule(shape, 132));
  assertEquals(bytes, 172 * 4 * 136 + 4 * (2 * 16 * 16 * 4 + 16 * 4));
});

/** Stored rows of a matrix. */
function matrix(dtype: CudaPackedType, { rows, cols, seed }: { rows: number; cols: number; seed: number }) {
  return randomWeights(dtype, tensorBytes(dtype, rows, cols), seed);
}

function silu(value: number): number {
  return value / (1 + Math.exp(-value));
}

interface Case {
  readonly dtype: CudaPackedType;
  readonly rows: number;
  readonly cols: number;
  readonly tokens: number;
  readonly output: LinearOutput;
  readonly norm?: { readonly epsilon: number };
  readonly schedule?: Partial<PackedSchedule>;
}

/** Records on the GPU, made there. */
function upload(
  gpu: TestGpu,
  linear: PackedLinear,
  { dtype, rows, cols, parts }: Pick<Case, "dtype" | "rows" | "cols"> & { readonly parts: readonly Uint8Array[] },
): DevicePtr {
  const shape = { dtype, rows, cols };
  const to = gpu.zeroed(parts.length === 1 ? cudaMatrixBytes(shape) : cudaPairBytes(shape));
  parts.forEach((stored, i) => {
    const half = parts.length === 1 ? undefined : i === 0 ? "first" : "second";
    linear.pack(gpu.stream, { ...shape, from: gpu.upload(stored), to, half });
  });
  return to;
}

/** Rows of x with NaN behind them. */
function padded(x: Float32Array, cols: number, stride: number): Float32Array {
  const out = new Float32Array(x.length / cols * stride).fill(NaN);
  for (let t = 0; t * cols < x.length; t++) out.set(x.subarray(t * cols, (t + 1) * cols), t * stride);
  return out;
}

/** Every input replaced by the largest magnitude of its block. */
function largestOfBlocks(x: Float32Array): Float32Array<ArrayBuffer> {
  return Float32Array.from(x, (_, i) => {
    const first = Math.floor(i / BLOCK) * BLOCK;
    return x.subarray(first, first + BLOCK).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  });
}

function run(gpu: TestGpu, { dtype, rows, cols, tokens, output, norm, schedule }: Case): void {
  const seeds = output === "swiglu" ? [SEEDS.test, SEEDS.bench] : [SEEDS.test];
  const parts = seeds.map((seed) => matrix(dtype, { rows, cols, seed }));
  const xStride = cols + X_PADDING;
  const outStride = rows + OUT_PADDING;
  const raw = randomInputs(tokens * cols, SEEDS.test);
  const gain = randomInputs(cols, SEEDS.bench);
  const seen = raw.map((value, i) => norm ? Math.fround(value * gain[i % cols]) : roundBf16(value));
  const scale = Array.from({ length: tokens }, (_, t) => {
    const squares = raw.subarray(t * cols, (t + 1) * cols).reduce((sum, value) => sum + value * value, 0);
    return norm ? 1 / Math.sqrt(squares / cols + norm.epsilon) : 1;
  });
  const narrow = output === "bf16" || output === "swiglu";
  const before = randomInputs(tokens * outStride, 3);
  const out = output === "add" ? gpu.upload(before) : gpu.poisoned(tokens * outStride * 4);
  const linear = new PackedLinear(gpu.kernels, gpu.context.properties);
  const x = padded(norm ? raw : seen, cols, xStride);
  linear.plan({ dtype, rows, cols, tokens, output, norm, xStride, outStride }, schedule).run(gpu.stream, {
    weights: upload(gpu, linear, { dtype, rows, cols, parts }),
    x: norm ? gpu.upload(x) : gpu.uploadBf16(x),
    gain: gpu.upload(gain),
    out,
  });
  const actual = narrow ? gpu.bf16(out, tokens * outStride) : gpu.f32(out, tokens * outStride);
  const products = parts.map((weights) => {
    const matrix = { dtype, weights, rows, cols, activations: "f32" } as const;
    const { out, reach } = linearReference({ ...matrix, x: seen });
    const widest = linearReference({ ...matrix, x: largestOfBlocks(seen) }).reach;
    return { out, reach: reach.map((value, i) => value * CUDA_TOLERANCE[dtype] + widest[i] * INPUT_ERROR) };
  });
  for (let t = 0; t < tokens; t++) {
    for (let r = 0; r < outStride; r++) {
      const at = `${dtype} ${rows} x ${cols} ${output}${norm ? " norm" : ""}: out[m ${t}, n ${r}]`;
      const got = actual[t * outStride + r];
      if (r >= rows) {
        assert(output === "add" ? got === before[t * outStride + r] : Number.isNaN(got), `${at}: wrote ${got}`);
        continue;
      }
      const i = t * rows + r;
      const [main, up] = products.map(({ out }) => out[i] * scale[t]);
      const [reach, upReach] = products.map((product) => product.reach[i] * scale[t]);
      const wanted = output === "swiglu" ? silu(main) * up : main + (output === "add" ? before[t * outStride + r] : 0);
      const bound = output === "swiglu"
        ? reach * (1.1 * Math.abs(up) + upReach) + Math.abs(silu(main)) * upReach
        : reach;
      const error = Math.abs(got - wanted);
      const rounding = Math.abs(wanted) * (narrow ? 2 ** -8 : 2 ** -21);
      assert(error <= bound + rounding, `${at}: wanted ${wanted}, got ${got}, bound ${bound + rounding}`);
    }
  }
}

for (const dtype of TYPES) {
  gpuTest(`PackedLinear.pack() makes the records of the reference, of whole matrices and of parts: ${dtype}`, (gpu) => {
    const linear = new PackedLinear(gpu.kernels, gpu.context.properties);
    for (const [rows, cols] of [[1, 32], [64, 64], [77, 160], [130, 96]]) {
      const shape = { dtype, rows, cols };
      const parts = [SEEDS.test, SEEDS.bench].map((seed) => matrix(dtype, { rows, cols, seed }));
      const alone = upload(gpu, linear, { ...shape, parts: [parts[0]] });
      const expected = tilePacked(parts[0], shape);
      assertEquals(gpu.bytes(alone, expected.length), expected, `${rows} x ${cols}`);
      const expectedPair = tilePair({ first: parts[0], second: parts[1] }, shape);
      const pair = upload(gpu, linear, { ...shape, parts });
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
    const parts = [SEEDS.test, SEEDS.bench].map((seed) => matrix(dtype, { rows, cols, seed }));
    const from = upload(gpu, linear, { dtype, rows, cols, parts });
    for (const [i, half] of (["first", "second"] as const).entries()) {
      const to = gpu.poisoned(2 * rows * cols);
      linear.unpack(gpu.stream, { dtype, rows, cols, from, to, half });
      const values = gpu.bf16(to, rows * cols);
      for (let k = 0; k < cols; k += 7) {
        const x = new Float32Array(cols);
        x[k] = 1;
        const { out } = linearReference({ dtype, weights: parts[i], rows, cols, x, activations: "f32" });
        for (let r = 0; r < rows; r++) {
          assertEquals(values[r * cols + k], roundBf16(Math.fround(out[r])), `${half} [n ${r}, k ${k}]`);
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
    const weights = upload(gpu, linear, { dtype, rows, cols, parts: [matrix(dtype, { rows, cols, seed: 7 })] });
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
