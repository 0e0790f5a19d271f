/**
 * Products of packed weights against a reference, for the tests of the kernels that compute them on a GPU.
 *
 * @module
 */
import { ok } from "node:assert/strict";
import type { DevicePtr } from "../../ffi/cuda/cuda.ts";
import { roundBf16, type TestGpu } from "../cuda/test_gpu.ts";
import { tensorBytes } from "../dtype.ts";
import { cudaMatrixBytes, type CudaMatrixShape, type CudaPackedType, cudaPairBytes } from "./cuda_layout.ts";
import type { PackedLinear, PackedOperands, PackedShape } from "./linear_packed_cuda.ts";
import { SEEDS } from "./spec.ts";
import { randomInputs, randomWeights } from "./test_data.ts";

/** Columns of NaN behind every row of x. */
const X_PADDING = 8;
/** Untouched columns behind every row of the output. */
const OUT_PADDING = 3;

/** A matrix and what its numbers depend on. */
interface SeededMatrix extends CudaMatrixShape {
  readonly dtype: CudaPackedType;
  readonly seed: number;
}

/** Stored rows of a matrix. */
export function storedMatrix({ dtype, rows, cols, seed }: SeededMatrix): Uint8Array<ArrayBuffer> {
  return randomWeights(dtype, tensorBytes(dtype, rows, cols), seed);
}

/** Records on the GPU, made there, of a matrix or of two that share strips. */
export function uploadRecords(
  gpu: TestGpu,
  linear: PackedLinear,
  { dtype, rows, cols, parts }: Omit<SeededMatrix, "seed"> & { readonly parts: readonly Uint8Array[] },
): DevicePtr {
  const shape = { dtype, rows, cols };
  const to = gpu.zeroed(parts.length === 1 ? cudaMatrixBytes(shape) : cudaPairBytes(shape));
  parts.forEach((stored, i) => {
    const half = parts.length === 1 ? undefined : i === 0 ? "first" : "second";
    linear.pack(gpu.stream, { ...shape, from: gpu.upload(stored), to, half });
  });
  return to;
}

/** Exact sums of a product, and how far results may be from them. */
interface Expected {
  readonly out: Float64Array | Float32Array;
  readonly reach: Float64Array | Float32Array;
}

/** A product to check. */
export interface CheckedProduct extends Pick<PackedShape, "dtype" | "rows" | "cols" | "tokens" | "output" | "norm"> {
  /** Exact sums of each matrix with the inputs that it sees. */
  readonly products: (
    seen: {
      readonly parts: readonly Uint8Array<ArrayBuffer>[];
      readonly weights: DevicePtr;
      readonly x: Float32Array<ArrayBuffer>;
    },
  ) => readonly Expected[];
  /** Enqueues the product. */
  readonly launch: (
    shape: Omit<PackedShape, "norm">,
    operands: PackedOperands & { readonly gain: DevicePtr },
  ) => void;
}

function silu(value: number): number {
  return value / (1 + Math.exp(-value));
}

/** Rows of x with NaN behind them. */
function padded(x: Float32Array, cols: number, stride: number): Float32Array {
  const out = new Float32Array(x.length / cols * stride).fill(NaN);
  for (let t = 0; t * cols < x.length; t++) out.set(x.subarray(t * cols, (t + 1) * cols), t * stride);
  return out;
}

/** Runs a product with random numbers and compares every output, and what lies behind them. */
export function checkProduct(
  gpu: TestGpu,
  linear: PackedLinear,
  { dtype, rows, cols, tokens, output, norm, products, launch }: CheckedProduct,
): void {
  const seeds = output === "swiglu" ? [SEEDS.test, SEEDS.bench] : [SEEDS.test];
  const parts = seeds.map((seed) => storedMatrix({ dtype, rows, cols, seed }));
  const weights = uploadRecords(gpu, linear, { dtype, rows, cols, parts });
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
  const x = padded(norm ? raw : seen, cols, xStride);
  launch({ dtype, rows, cols, tokens, output, xStride, outStride }, {
    weights,
    x: norm ? gpu.upload(x) : gpu.uploadBf16(x),
    gain: gpu.upload(gain),
    out,
  });
  const actual = narrow ? gpu.bf16(out, tokens * outStride) : gpu.f32(out, tokens * outStride);
  const expected = products({ parts, weights, x: seen });
  for (let t = 0; t < tokens; t++) {
    for (let r = 0; r < outStride; r++) {
      const at = `${dtype} ${rows} x ${cols} ${output}${norm ? " norm" : ""}: out[m ${t}, n ${r}]`;
      const got = actual[t * outStride + r];
      if (r >= rows) {
        ok(output === "add" ? got === before[t * outStride + r] : Number.isNaN(got), `${at}: wrote ${got}`);
        continue;
      }
      const i = t * rows + r;
      const [main, up] = expected.map(({ out }) => out[i] * scale[t]);
      const [reach, upReach] = expected.map((product) => product.reach[i] * scale[t]);
      const wanted = output === "swiglu" ? silu(main) * up : main + (output === "add" ? before[t * outStride + r] : 0);
      const bound = output === "swiglu"
        ? reach * (1.1 * Math.abs(up) + upReach) + Math.abs(silu(main)) * upReach
        : reach;
      const error = Math.abs(got - wanted);
      const rounding = Math.abs(wanted) * (narrow ? 2 ** -8 : 2 ** -21);
      ok(error <= bound + rounding, `${at}: wanted ${wanted}, got ${got}, bound ${bound + rounding}`);
    }
  }
}
