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

/** Inputs of many tokens, matrices, and what they make of them; fewer tokens are the first ones. */
class Products {
  readonly rows: number;
  readonly cols: number;
  readonly output: LinearOutput;
  readonly weights: readonly Uint8Array<ArrayBuffer>[];
  readonly x: Float32Array;
  readonly #references: readonly ReturnType<typeof linearReference>[];

  constructor({ rows, cols, output }: Omit<StreamShape, "tokens">) {
    [this.rows, this.cols, this.output] = [rows, cols, output];
    const seeds = output === "swiglu" ? [SEEDS.test, SEEDS.bench] : [SEEDS.test];
    this.weights = seeds.map((seed) => weightsOf(rows, cols, seed));
    this.x = randomInputs(MAX_STREAM_TOKENS * cols, SEEDS.test).map(roundBf16);
    this.#references = this.weights.map((weights) =>
      linearReference({ dtype: "BF16", weights, rows, cols, x: this.x, activations: "f32" })
    );
  }

  /** Runs the product of the first tokens and compares it. */
  check(
    gpu: TestGpu,
    linear: StreamLinear,
    { tokens, choice }: { readonly tokens: number; readonly choice?: StreamChoice },
  ) {
    const { rows, cols, output } = this;
    const bytes = this.weights[0].length;
    const weights = gpu.poisoned(this.weights.length * bytes);
    this.weights.forEach((part, i) => gpu.stream.copyToDevice(weights + BigInt(i * bytes) as DevicePtr, part));
    const xStride = cols + X_PADDING;
    const outStride = rows + OUT_PADDING;
    const narrow = output === "bf16" || output === "swiglu";
    const before = randomInputs(tokens * outStride, 3);
    const out = output === "add" ? gpu.upload(before) : gpu.poisoned(tokens * outStride * 4);
    const x = gpu.uploadBf16(padded(this.x.subarray(0, tokens * cols), cols, xStride));
    const plan = linear.plan({ rows, cols, tokens, output, xStride, outStride }, choice);
    plan.run(gpu.stream, { weights, x, out });
    const actual = narrow ? gpu.bf16(out, tokens * outStride) : gpu.f32(out, tokens * outStride);
    for (let t = 0; t < tokens; t++) {
      for (let r = 0; r < outStride; r++) {
        const at = `${rows} x ${cols} ${output}, ${tokens} tokens: out[m ${t}, n ${r}]`;
        const got = actual[t * outStride + r];
        const old = before[t * outStride + r];
        if (r >= rows) {
          assert(output === "add" ? got === old : Number.isNaN(got), `${at}: wrote ${got}`);
          continue;
        }
        const { wanted, bound } = this.#wanted(t * rows + r, old);
        const rounding = Math.abs(wanted) * (narrow ? 2 ** -8 : 2 ** -22);
        assert(
          Math.abs(got - wanted) <= bound + rounding,
          `${at}: wanted ${wanted}, got ${got}, bound ${bound + rounding}`,
        );
      }
    }
  }

  #wanted(index: number, old: number): { readonly wanted: number; readonly bound: number } {
    const [main, up] = this.#references.map(({ out }) => out[index]);
    const [reach, upReach] = this.#references.map((reference) => reference.reach[index] * CUDA_TOLERANCE.BF16);
    return this.output === "swiglu"
      ? {
        wanted: silu(main) * up,
        bound: reach * (1.1 * Math.abs(up) + upReach) + Math.abs(silu(main)) * upReach,
      }
      : { wanted: main + (this.output === "add" ? old : 0), bound: reach };
  }
}

for (const output of OUTPUTS) {
  gpuTest(`StreamPlan.run() agrees with the reference and writes nothing else: ${output}`, (gpu) => {
    const linear = new StreamLinear(gpu.context, gpu.kernels);
    for (const [rows, cols] of [[1, 8], [200, 136], [77, 1000], [65, 4168]]) {
      const products = new Products({ rows, cols, output });
      for (const tokens of [1, 9, 17, 64]) products.check(gpu, linear, { tokens });
    }
  });

  gpuTest(`StreamPlan.run() agrees with the reference with other pieces and chunks: ${output}`, (gpu) => {
    const linear = new StreamLinear(gpu.context, gpu.kernels);
    const pairs = output === "swiglu";
    const products = new Products({ rows: 333, cols: 1112, output });
    const choices: readonly StreamChoice[] = [
      { tilePieces: pairs ? 2 : 1, pieceRows: 32, atoms: 4 },
      { tilePieces: 2, pieceRows: 55, atoms: 2, resident: 2 },
      { tilePieces: pairs ? 4 : 3, pieceRows: 64, atoms: 2 },
      { tilePieces: 4, pieceRows: 42, atoms: 1, resident: 2 },
      // More tiles than blocks.
      { tilePieces: pairs ? 2 : 1, pieceRows: 1, atoms: 1 },
    ];
    choices.forEach((choice, i) => {
      for (const tokens of i % 2 === 0 ? [16, 64] : [3, 31]) products.check(gpu, linear, { tokens, choice });
    });
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
