import { assert, assertEquals, assertThrows } from "@std/assert";
import type { DevicePtr } from "../../ffi/cuda/cuda.ts";
import { bf16Bits, gpuTest, roundBf16, type TestGpu } from "../cuda/test_gpu.ts";
import type { LinearOutput } from "./linear_direct_cuda.ts";
import {
  MAX_STREAM_TOKENS,
  type StreamChoice,
  StreamLinear,
  streamSchedule,
  type StreamShape,
  streamSharedBytes,
} from "./linear_stream_cuda.ts";
import { linearReference } from "./reference.ts";
import { CUDA_TOLERANCE, SEEDS } from "./spec.ts";
import { randomInputs, randomWeights } from "./test_data.ts";

const OUTPUTS: readonly LinearOutput[] = ["bf16", "f32", "add", "swiglu"];
/** Columns of NaN behind every row of x. */
const X_PADDING = 8;
/** Untouched columns behind every row of the output. */
const OUT_PADDING = 3;
/** Shapes of the 7B, 8B and 135M models. */
const MODEL_SHAPES = [
  [12288, 4096],
  [6144, 4096],
  [4096, 4096],
  [4096, 11008],
  [4096, 14336],
  [32000, 4096],
  [128256, 4096],
  [960, 576],
  [576, 1536],
  [49152, 576],
];

Deno.test("streamSchedule() fits shared memory, once or twice, has a tile of weights in flight and gives every multiprocessor its share", () => {
  for (const [rows, cols] of [...MODEL_SHAPES, [1, 8], [300, 4096]]) {
    for (const tokens of [1, 9, 17, 33, 64]) {
      for (const output of OUTPUTS) {
        for (const resident of [1, 2] as const) {
          const schedule = streamSchedule({ rows, cols, tokens, output }, 132, { resident });
          const { warpgroups, pieces, pieceRows, weightSlots } = schedule;
          const what = `${rows} x ${cols} ${output} ${tokens} tokens, ${resident} blocks`;
          assert(streamSharedBytes(schedule) <= (resident === 1 ? 227 : 113) * 1024, what);
          assert(weightSlots > 0 && weightSlots % (warpgroups * pieces) === 0, what);
          assert(pieceRows >= 1 && pieceRows <= 64, what);
          const tiles = Math.ceil(rows / (warpgroups * pieceRows * (output === "swiglu" ? 1 : pieces)));
          const share = rows * (output === "swiglu" ? 2 : 1) / 132;
          assert(tiles <= 132 * Math.ceil(share / (64 * warpgroups * pieces)), what);
          assert(output !== "swiglu" || pieces === 2, what);
        }
      }
    }
  }
});

Deno.test("streamSchedule() names what is out of range", () => {
  const shape: StreamShape = { rows: 64, cols: 64, tokens: 1, output: "bf16" };
  const refuse = (changes: Partial<StreamShape>, message: string) =>
    assertThrows(() => streamSchedule({ ...shape, ...changes }, 132), RangeError, message);
  refuse({ tokens: 65 }, "axis M (tokens) must be 1 to 64, got 65");
  refuse({ cols: 100 }, "axis K (cols) must be a positive multiple of 8, got 100");
  refuse({ rows: 0 }, "axis N (rows)");
  refuse({ xStride: 65 }, "xStride");
  refuse({ outStride: 8 }, "outStride");
});

function silu(value: number): number {
  return value / (1 + Math.exp(-value));
}

/** bf16 weights as a file stores them. */
function weightsOf(rows: number, cols: number, seed: number): Uint8Array<ArrayBuffer> {
  const stored = randomWeights("BF16", 2 * rows * cols, seed);
  // The first two are of any size, up to infinity.
  stored.fill(0, 0, Math.min(4, stored.length));
  return stored;
}

/** Rows of x with NaN behind them. */
function padded(x: Float32Array, cols: number, stride: number): Float32Array {
  const out = new Float32Array(x.length / cols * stride).fill(NaN);
  for (let t = 0; t * cols < x.length; t++) out.set(x.subarray(t * cols, (t + 1) * cols), t * stride);
  return out;
}

function run(gpu: TestGpu, linear: StreamLinear, shape: StreamShape, choice?: StreamChoice): void {
  const { rows, cols, tokens, output } = shape;
  const seeds = output === "swiglu" ? [SEEDS.test, SEEDS.bench] : [SEEDS.test];
  const parts = seeds.map((seed) => weightsOf(rows, cols, seed));
  const weights = gpu.poisoned(parts.length * parts[0].length);
  parts.forEach((part, i) => gpu.stream.copyToDevice(weights + BigInt(i * part.length) as DevicePtr, part));
  const xStride = cols + X_PADDING;
  const outStride = rows + OUT_PADDING;
  const x = randomInputs(tokens * cols, SEEDS.test).map(roundBf16);
  const narrow = output === "bf16" || output === "swiglu";
  const before = randomInputs(tokens * outStride, 3);
  const out = output === "add" ? gpu.upload(before) : gpu.poisoned(tokens * outStride * 4);
  linear.plan({ ...shape, xStride, outStride }, choice).run(gpu.stream, {
    weights,
    x: gpu.uploadBf16(padded(x, cols, xStride)),
    out,
  });
  const actual = narrow ? gpu.bf16(out, tokens * outStride) : gpu.f32(out, tokens * outStride);
  const products = parts.map((part) =>
    linearReference({ dtype: "BF16", weights: part, rows, cols, x, activations: "f32" })
  );
  for (let t = 0; t < tokens; t++) {
    for (let r = 0; r < outStride; r++) {
      const at = `${rows} x ${cols} ${output}, ${tokens} tokens: out[m ${t}, n ${r}]`;
      const got = actual[t * outStride + r];
      if (r >= rows) {
        assert(output === "add" ? got === before[t * outStride + r] : Number.isNaN(got), `${at}: wrote ${got}`);
        continue;
      }
      const [main, up] = products.map(({ out }) => out[t * rows + r]);
      const [reach, upReach] = products.map((product) => product.reach[t * rows + r] * CUDA_TOLERANCE.BF16);
      const wanted = output === "swiglu" ? silu(main) * up : main + (output === "add" ? before[t * outStride + r] : 0);
      const bound = output === "swiglu"
        ? reach * (1.1 * Math.abs(up) + upReach) + Math.abs(silu(main)) * upReach
        : reach;
      const rounding = Math.abs(wanted) * (narrow ? 2 ** -8 : 2 ** -22);
      assert(
        Math.abs(got - wanted) <= bound + rounding,
        `${at}: wanted ${wanted}, got ${got}, bound ${bound + rounding}`,
      );
    }
  }
}

for (const output of OUTPUTS) {
  gpuTest(`StreamPlan.run() agrees with the reference and writes nothing else: ${output}`, (gpu) => {
    const linear = new StreamLinear(gpu.context, gpu.kernels);
    for (const [rows, cols] of [[1, 8], [200, 136], [77, 1000], [65, 4168]]) {
      for (const tokens of [1, 8, 9, 17, 40, 64]) run(gpu, linear, { rows, cols, tokens, output });
    }
  });

  gpuTest(`StreamPlan.run() agrees with the reference with other pieces and chunks: ${output}`, (gpu) => {
    const linear = new StreamLinear(gpu.context, gpu.kernels);
    const pairs = output === "swiglu";
    const choices: readonly StreamChoice[] = [
      { tilePieces: pairs ? 2 : 1, pieceRows: 32, atoms: 4 },
      { tilePieces: 2, pieceRows: 55, atoms: 2 },
      { tilePieces: pairs ? 4 : 3, pieceRows: 64, atoms: 2 },
      { tilePieces: 4, pieceRows: 42, atoms: 1, resident: 2 },
      { tilePieces: 2, pieceRows: 3, atoms: 1 },
    ];
    for (const choice of choices) {
      for (const tokens of [3, 16, 31, 64]) run(gpu, linear, { rows: 333, cols: 1112, tokens, output }, choice);
    }
  });
}

gpuTest("StreamPlan.run() gives the same bits whatever tokens are beside one, from a graph and again", (gpu) => {
  const linear = new StreamLinear(gpu.context, gpu.kernels);
  const [rows, cols] = [1100, 4096];
  const weights = gpu.upload(weightsOf(rows, cols, SEEDS.test));
  const x = gpu.upload(Uint16Array.from(randomInputs(MAX_STREAM_TOKENS * cols, SEEDS.test), bf16Bits));
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
  const all = product(MAX_STREAM_TOKENS);
  for (const tokens of [63, 33, 32, 31, 16, 9, 8, 5, 1]) {
    assertEquals(product(tokens), all.slice(0, tokens * rows), `${tokens} tokens`);
  }
});
