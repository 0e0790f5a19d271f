import { assert, assertEquals, assertThrows } from "@std/assert";
import type { DevicePtr } from "../../ffi/cuda/cuda.ts";
import { bf16Bits, gpuTest, roundBf16, type TestGpu } from "../cuda/test_gpu.ts";
import { tensorBytes } from "../dtype.ts";
import {
  DirectLinear,
  directSchedule,
  type DirectShape,
  type LinearOutput,
  MAX_DIRECT_TOKENS,
} from "./linear_direct_cuda.ts";
import { linearReference } from "./reference.ts";
import { CUDA_TOLERANCE, SEEDS } from "./spec.ts";
import { randomInputs, randomWeights } from "./test_data.ts";

const OUTPUTS: readonly LinearOutput[] = ["bf16", "f32", "add", "swiglu"];
/** Columns of NaN behind every row of x. */
const X_PADDING = 8;
/** Untouched columns behind every row of the output. */
const OUT_PADDING = 3;

/** Numbers of tokens from `from` to `to`. */
function range(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}

Deno.test("directSchedule() sums in one order for up to 8 tokens, and in one for more", () => {
  for (const [rows, cols] of [[1, 32], [960, 576], [4096, 14336], [6144, 4096], [128256, 4096]]) {
    for (const output of OUTPUTS) {
      const orders = (tokens: readonly number[]) =>
        new Set(tokens.map((count) => directSchedule({ rows, cols, tokens: count, output }, 132).warps)).size;
      const most = MAX_DIRECT_TOKENS;
      assertEquals([orders(range(1, 8)), orders(range(9, most))], [1, 1], `${rows} x ${cols} ${output}`);
      if (output === "swiglu") assertEquals(orders(range(1, most)), 1);
    }
  }
});

Deno.test("directSchedule() gives a block of a large matrix two tiles", () => {
  const tiles = (rows: number) => directSchedule({ rows, cols: 4096, tokens: 16, output: "bf16" }, 132).rowTiles;
  assertEquals([576, 4096, 6144, 128256].map(tiles), [1, 1, 2, 2]);
});

Deno.test("directSchedule() names what is out of range", () => {
  const shape: DirectShape = { rows: 64, cols: 64, tokens: 1, output: "bf16" };
  const refuse = (changes: Partial<DirectShape>, message: string) =>
    assertThrows(() => directSchedule({ ...shape, ...changes }, 132), RangeError, message);
  refuse({ tokens: 33 }, "axis M (tokens) must be 1 to 32, got 33");
  refuse({ tokens: 9, norm: { epsilon: 1e-5 } }, "must be 1 to 8");
  refuse({ cols: 100 }, "axis K (cols) must be a multiple of 8, got 100");
  refuse({ rows: 0 }, "axis N (rows) must be a positive integer, got 0");
  refuse({ xStride: 65 }, "xStride");
  refuse({ xStride: 8 }, "xStride");
  refuse({ outStride: 8 }, "outStride");
});

/** A matrix as a model file stores it. */
function matrix(rows: number, cols: number, seed: number = SEEDS.test): Uint8Array<ArrayBuffer> {
  const stored = randomWeights("BF16", tensorBytes("BF16", rows, cols), seed);
  // The first two weights are of any size, up to infinity.
  return stored.fill(0, 0, Math.min(4, stored.length));
}

function silu(value: number): number {
  return value / (1 + Math.exp(-value));
}

interface Case {
  readonly rows: number;
  readonly cols: number;
  readonly tokens: number;
  readonly output: LinearOutput;
  readonly norm?: { readonly epsilon: number };
}

/** Matrices on the GPU, one behind the other. */
function upload(gpu: TestGpu, parts: readonly Uint8Array[]): DevicePtr {
  return gpu.upload(Uint8Array.from(parts.flatMap((part) => [...part])));
}

/** Rows of x with NaN behind them. */
function padded(x: Float32Array, cols: number, stride: number): Float32Array {
  const out = new Float32Array(x.length / cols * stride).fill(NaN);
  for (let t = 0; t * cols < x.length; t++) out.set(x.subarray(t * cols, (t + 1) * cols), t * stride);
  return out;
}

function run(gpu: TestGpu, { rows, cols, tokens, output, norm }: Case): void {
  const seeds = output === "swiglu" ? [SEEDS.test, SEEDS.bench] : [SEEDS.test];
  const parts = seeds.map((seed) => matrix(rows, cols, seed));
  const xStride = Math.ceil(cols / 8) * 8 + X_PADDING;
  const outStride = rows + OUT_PADDING;
  const raw = randomInputs(tokens * cols, SEEDS.test);
  const gain = randomInputs(cols, SEEDS.bench);
  const seen = raw.map((value, i) => roundBf16(norm ? Math.fround(value * gain[i % cols]) : value));
  const scale = Array.from({ length: tokens }, (_, t) => {
    const squares = raw.subarray(t * cols, (t + 1) * cols).reduce((sum, value) => sum + value * value, 0);
    return norm ? 1 / Math.sqrt(squares / cols + norm.epsilon) : 1;
  });
  const narrow = output === "bf16" || output === "swiglu";
  const before = randomInputs(tokens * outStride, 3);
  const out = output === "add" ? gpu.upload(before) : gpu.poisoned(tokens * outStride * 4);
  const linear = new DirectLinear(gpu.kernels, gpu.context.properties);
  const x = padded(norm ? raw : seen, cols, xStride);
  linear.plan({ rows, cols, tokens, output, norm, xStride, outStride }).run(gpu.stream, {
    weights: upload(gpu, parts),
    x: norm ? gpu.upload(x) : gpu.uploadBf16(x),
    gain: gpu.upload(padded(gain, cols, xStride)),
    out,
  });
  const actual = narrow ? gpu.bf16(out, tokens * outStride) : gpu.f32(out, tokens * outStride);
  const products = parts.map((weights) =>
    linearReference({ dtype: "BF16", weights, rows, cols, x: seen, activations: "f32" })
  );
  for (let t = 0; t < tokens; t++) {
    for (let r = 0; r < outStride; r++) {
      const at = `${rows} x ${cols} ${output}: out[m ${t}, n ${r}]`;
      const got = actual[t * outStride + r];
      if (r >= rows) {
        assert(output === "add" ? got === before[t * outStride + r] : Number.isNaN(got), `${at}: wrote ${got}`);
        continue;
      }
      const i = t * rows + r;
      const [main, up] = products.map(({ out }) => out[i] * scale[t]);
      const [reach, upReach] = products.map((product) => product.reach[i] * scale[t] * CUDA_TOLERANCE.BF16);
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

for (const output of OUTPUTS) {
  gpuTest(`DirectPlan.run() agrees with the reference and writes nothing else: ${output}`, (gpu) => {
    for (const [rows, cols] of [[1, 8], [200, 136], [77, 1000], [65, 4168]]) {
      for (const tokens of [1, 2, 8, 9, 17, 32]) run(gpu, { rows, cols, tokens, output });
      for (const tokens of [1, 3, 8]) run(gpu, { rows, cols, tokens, output, norm: { epsilon: 1e-5 } });
    }
  });
}

gpuTest("DirectPlan.run() gives the same bits whatever tokens are beside one, from a graph and again", (gpu) => {
  const linear = new DirectLinear(gpu.kernels, gpu.context.properties);
  const [rows, cols, most] = [300, 4096, MAX_DIRECT_TOKENS];
  const weights = upload(gpu, [matrix(rows, cols)]);
  const x = gpu.upload(Uint16Array.from(randomInputs(most * cols, SEEDS.test), bf16Bits));
  const product = (tokens: number): Float32Array => {
    const out = gpu.poisoned(4 * tokens * rows);
    const plan = linear.plan({ rows, cols, tokens, output: "f32" });
    using graph = gpu.stream.capture(() => {
      for (let again = 0; again < 3; again++) plan.run(gpu.stream, { weights, x, out, programmatic: again > 0 });
    });
    graph.launch(gpu.stream);
    gpu.stream.synchronize();
    return gpu.f32(out, tokens * rows);
  };
  for (const same of [[8, 5, 1], [32, 31, 16, 9]]) {
    const all = product(same[0]);
    for (const tokens of same) {
      assertEquals(product(tokens), all.slice(0, tokens * rows), `${tokens} of ${same[0]} tokens`);
    }
  }
});
