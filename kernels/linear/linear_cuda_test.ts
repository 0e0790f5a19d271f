import { assert, assertEquals, assertThrows } from "@std/assert";
import type { DevicePtr } from "../../ffi/cuda/cuda.ts";
import { bf16Bits, gpuTest, roundBf16, type TestGpu } from "../cuda/test_gpu.ts";
import { tensorBytes } from "../dtype.ts";
import { type CudaMatrixShape, type CudaWeightType, tileBf16, tiledBytes, tilePacked } from "./cuda_layout.ts";
import { maxTokens, schedule, SkinnyLinear, type SkinnyOutput, type SkinnyShape } from "./linear_cuda.ts";
import { linearReference } from "./reference.ts";
import { CUDA_TOLERANCE, SEEDS } from "./spec.ts";
import { randomInputs, randomWeights } from "./test_data.ts";

const TYPES: readonly CudaWeightType[] = ["BF16", "Q8_0", "Q4_0", "Q4_1"];
const OUTPUTS: readonly SkinnyOutput[] = ["bf16", "f32", "add", "swiglu"];
/** Columns of NaN behind every row of x. */
const X_PADDING = 8;
/** Untouched columns behind every row of the output. */
const OUT_PADDING = 3;

Deno.test("schedule() stays within a multiprocessor's shared memory and leaves half of it while tokens are few", () => {
  for (const dtype of TYPES) {
    for (const [rows, cols] of [[1, 32], [960, 576], [4096, 14336], [128256, 4096]]) {
      for (const tokens of [1, 8, 9, 16, 32, 64].filter((count) => count <= maxTokens(dtype))) {
        const chosen = schedule({ dtype, rows, cols, tokens, output: "bf16" }, 132);
        assert(
          chosen.sharedBytes <= 232_448,
          `${dtype} ${rows} x ${cols}, ${tokens} tokens: ${chosen.sharedBytes} bytes`,
        );
        if (dtype === "BF16") assert(chosen.sharedBytes <= 115_712);
        assert(chosen.slots >= 2 && chosen.xSlots >= 1);
        assert(4 * chosen.clusters <= 132 && chosen.clusters <= chosen.units);
      }
    }
  }
});

Deno.test("schedule() gives no cluster more tiles than needed", () => {
  assertEquals(schedule({ dtype: "BF16", rows: 4096, cols: 4096, tokens: 1, output: "f32" }, 132).clusters, 32);
  assertEquals(schedule({ dtype: "BF16", rows: 576, cols: 576, tokens: 1, output: "f32" }, 132).clusters, 9);
});

Deno.test("schedule() names what is out of range", () => {
  const shape: SkinnyShape = { dtype: "BF16", rows: 64, cols: 64, tokens: 1, output: "bf16" };
  const refuse = (changes: Partial<SkinnyShape>, message: string) =>
    assertThrows(() => schedule({ ...shape, ...changes }, 132), RangeError, message);
  refuse({ tokens: 65 }, "axis M (tokens) must be 1 to 64, got 65");
  refuse({ tokens: 17, dtype: "Q4_0" }, "must be 1 to 16");
  refuse({ tokens: 9, norm: { epsilon: 1e-5 } }, "must be 1 to 8");
  refuse({ cols: 100, layout: "rows" }, "row-major weights");
  refuse({ tokens: 2, xStride: 65 }, "xStride");
  refuse({ xStride: 8 }, "xStride");
  refuse({ outStride: 8 }, "outStride");
  refuse({ cols: 200_000, norm: { epsilon: 1e-5 } }, "axis K (cols)");
});

/** A matrix as a model file stores it. */
function matrix({ dtype, rows, cols }: CudaMatrixShape, seed: number = SEEDS.test) {
  const stored = randomWeights(dtype, tensorBytes(dtype, rows, cols), seed);
  // The first two of the bf16 weights are of any size, up to infinity.
  if (dtype === "BF16") stored.fill(0, 0, Math.min(4, stored.length));
  return { stored, rows, cols, dtype };
}

function silu(value: number): number {
  return value / (1 + Math.exp(-value));
}

interface Case {
  readonly dtype: CudaWeightType;
  readonly rows: number;
  readonly cols: number;
  readonly tokens: number;
  readonly output: SkinnyOutput;
  readonly norm?: boolean;
}

/** Tiles matrices on the GPU, one behind the other. */
function upload(gpu: TestGpu, linear: SkinnyLinear, parts: readonly ReturnType<typeof matrix>[]): DevicePtr {
  const bytes = tiledBytes(parts[0]);
  const weights = gpu.poisoned(bytes * parts.length);
  parts.forEach(({ stored, ...shape }, i) => {
    const to = weights + BigInt(bytes * i) as DevicePtr;
    linear.pack(gpu.stream, { ...shape, from: gpu.upload(stored), to });
  });
  return weights;
}

/** Rows of x with NaN behind them. */
function padded(x: Float32Array, cols: number, stride: number): Float32Array {
  const out = new Float32Array(x.length / cols * stride).fill(NaN);
  for (let t = 0; t * cols < x.length; t++) out.set(x.subarray(t * cols, (t + 1) * cols), t * stride);
  return out;
}

function run(gpu: TestGpu, { dtype, rows, cols, tokens, output, norm }: Case): void {
  const linear = new SkinnyLinear(gpu.kernels, gpu.context.properties);
  const seeds = output === "swiglu" ? [SEEDS.test, SEEDS.bench] : [SEEDS.test];
  const parts = seeds.map((seed) => matrix({ dtype, rows, cols }, seed));
  const xStride = Math.ceil(cols / 8) * 8 + X_PADDING;
  const outStride = rows + OUT_PADDING;
  const epsilon = 1e-5;
  const shape: SkinnyShape = {
    dtype,
    rows,
    cols,
    tokens,
    output,
    xStride,
    outStride,
    norm: norm ? { epsilon } : undefined,
  };
  const raw = randomInputs(tokens * cols, SEEDS.test);
  const gain = randomInputs(cols, SEEDS.bench);
  const seen = raw.map((value, i) => roundBf16(norm ? Math.fround(value * gain[i % cols]) : value));
  const scale = Array.from({ length: tokens }, (_, t) => {
    const squares = raw.subarray(t * cols, (t + 1) * cols).reduce((sum, value) => sum + value * value, 0);
    return norm ? 1 / Math.sqrt(squares / cols + epsilon) : 1;
  });
  const x = padded(norm ? raw : seen, cols, xStride);
  const narrow = output === "bf16" || output === "swiglu";
  const before = randomInputs(tokens * outStride, 3);
  const out = output === "add" ? gpu.upload(before) : gpu.poisoned(tokens * outStride * 4);
  linear.plan(shape).run(gpu.stream, {
    weights: upload(gpu, linear, parts),
    x: norm ? gpu.upload(x) : gpu.uploadBf16(x),
    out,
    gain: gpu.upload(padded(gain, cols, xStride)),
  });
  const actual = narrow ? gpu.bf16(out, tokens * outStride) : gpu.f32(out, tokens * outStride);
  const products = parts.map(({ stored }) =>
    linearReference({ dtype, weights: stored, rows, cols, x: seen, activations: "f32" })
  );
  for (let t = 0; t < tokens; t++) {
    for (let r = 0; r < outStride; r++) {
      const at = `${dtype} ${rows} x ${cols} ${output}: out[m ${t}, n ${r}]`;
      const got = actual[t * outStride + r];
      if (r >= rows) {
        assert(output === "add" ? got === before[t * outStride + r] : Number.isNaN(got), `${at}: wrote ${got}`);
        continue;
      }
      const i = t * rows + r;
      const [main, up] = products.map(({ out }) => out[i] * scale[t]);
      const [reach, upReach] = products.map((product) => product.reach[i] * scale[t] * CUDA_TOLERANCE[dtype]);
      const wanted = output === "swiglu" ? silu(main) * up : main + (output === "add" ? before[t * outStride + r] : 0);
      const bound = output === "swiglu"
        ? reach * (1.1 * Math.abs(up) + upReach) + Math.abs(silu(main)) * upReach
        : reach;
      const error = Math.abs(got - wanted);
      const rounding = Math.abs(wanted) * (narrow ? 2 ** -8 : 2 ** -22);
      assert(error <= bound + rounding, `${at}: wanted ${wanted}, got ${got}, bound ${bound + rounding}`);
    }
  }
}

for (const dtype of TYPES) {
  gpuTest(`SkinnyLinear.pack() makes the tiles of the reference: ${dtype}`, (gpu) => {
    const linear = new SkinnyLinear(gpu.kernels, gpu.context.properties);
    for (const [rows, cols] of [[1, 32], [64, 64], [77, 160], [130, 96]]) {
      const { stored } = matrix({ dtype, rows, cols });
      const to = gpu.poisoned(tiledBytes({ dtype, rows, cols }));
      linear.pack(gpu.stream, { dtype, rows, cols, from: gpu.upload(stored), to });
      const expected = dtype === "BF16"
        ? tileBf16(new Uint16Array(stored.buffer), { rows, cols })
        : tilePacked(stored, { dtype, rows, cols });
      assertEquals(gpu.bytes(to, expected.length), new Uint8Array(expected), `${rows} x ${cols}`);
    }
  });

  for (const output of OUTPUTS) {
    gpuTest(`SkinnyPlan.run() agrees with the reference and writes nothing else: ${dtype}, ${output}`, (gpu) => {
      const odd = dtype === "BF16"
        ? [[1, 8], [200, 136], [77, 100], [65, 1100]]
        : [[1, 32], [200, 160], [77, 96], [65, 1120]];
      for (const [rows, cols] of odd) {
        for (const tokens of [1, 2, 8, 9, 17, 33, 64].filter((count) => count <= maxTokens(dtype))) {
          run(gpu, { dtype, rows, cols, tokens, output });
        }
      }
    });
  }

  gpuTest(`SkinnyPlan.run() normalises f32 inputs: ${dtype}`, (gpu) => {
    for (const [rows, cols] of [[1, 32], [200, 160], [77, 1120]]) {
      for (const tokens of [1, 3, 8]) {
        for (const output of ["f32", "swiglu"] as const) run(gpu, { dtype, rows, cols, tokens, output, norm: true });
      }
    }
  });

  gpuTest(
    `SkinnyPlan.run() gives the same bits for every number of tokens, from a graph and again: ${dtype}`,
    (gpu) => {
      const linear = new SkinnyLinear(gpu.kernels, gpu.context.properties);
      const [rows, cols, most] = [300, 4096, maxTokens(dtype)];
      const weights = upload(gpu, linear, [matrix({ dtype, rows, cols })]);
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
      for (const tokens of [1, 5, 8, 16, 31].filter((count) => count < most)) {
        assertEquals(product(tokens), all.slice(0, tokens * rows), `${tokens} tokens`);
      }
    },
  );
}

gpuTest("SkinnyPlan.run() refuses weights of the other layout and a missing gain", (gpu) => {
  const linear = new SkinnyLinear(gpu.kernels, gpu.context.properties);
  const shape = { dtype: "BF16", rows: 64, cols: 64, tokens: 1, output: "f32" } as const;
  const [weights, x, out] = [8192, 256, 256].map((bytes) => gpu.zeroed(bytes));
  assertThrows(() => linear.plan(shape).run(gpu.stream, { weights: new Uint8Array(128), x, out }), TypeError, "tiled");
  const plan = linear.plan({ ...shape, norm: { epsilon: 1e-5 } });
  assertThrows(() => plan.run(gpu.stream, { weights, x, out }), TypeError, "gain");
});
