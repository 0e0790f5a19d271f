/**
 * Products of few tokens by kernels of our own, which read the same weights as the library's.
 *
 * @module
 */
import type { CudaContext, CudaProperties, CudaStream, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../../kernels/cuda/kernel_cache.ts";
import {
  DirectLinear,
  type DirectPlan,
  type DirectShape,
  MAX_DIRECT_TOKENS,
  MAX_NORM_TOKENS,
} from "../../kernels/linear/linear_direct_cuda.ts";
import {
  MAX_STREAM_TOKENS,
  STREAM_CHOICES,
  type StreamKind,
  StreamLinear,
  type StreamPlan,
} from "../../kernels/linear/linear_stream_cuda.ts";
import type { ModelConfig } from "../model/model.ts";
import { qkvRows } from "./cuda_weights.ts";

/** Columns are a multiple of this. */
const COLUMN_UNIT = 8;

/** Matrices of a model by what they compute; `gateUp` includes the activation. */
export type DirectMatrix = "qkv" | "output" | "gateUp" | "down" | "head";

const MATRICES: readonly DirectMatrix[] = ["qkv", "output", "gateUp", "down", "head"];

/** Matrices with a norm in front. */
const NORMED: readonly DirectMatrix[] = ["qkv", "gateUp"];

/** Our kernels: weights go straight into registers, or through shared memory in one of two schedules. */
export type DirectKernel = "direct" | StreamKind;

const STREAM_KINDS: readonly StreamKind[] = ["stream", "streamPairs"];
/** Fewest tokens of a product whose weights go through shared memory; fewer are done as fast without. */
const MIN_STREAM_TOKENS = 8;

/** What a kernel is chosen for. */
export interface DirectKind {
  /** Which matrix. */
  readonly matrix: DirectMatrix;
  /** Tokens. */
  readonly tokens: number;
  /** Whether the norm in front is part of it; only `direct` has that. @default {false} */
  readonly norm?: boolean;
  /** Which kernel. @default {"direct"} */
  readonly kernel?: DirectKernel;
}

/** One product. */
export interface DirectProduct {
  /** Which matrix. */
  readonly matrix: DirectMatrix;
  /** Tokens. */
  readonly tokens: number;
  /** Weights, bf16 [rows, columns]; gate rows, then up rows. */
  readonly weights: DevicePtr;
  /** Input, bf16 [tokens, columns]; f32 with `gain`. */
  readonly x: DevicePtr;
  /** Gain of a norm that goes before the product, f32 [columns]. @default {no norm} */
  readonly gain?: DevicePtr;
  /** Output: bf16, f32 for `head`, f32 that is added to for `output` and `down`. */
  readonly out: DevicePtr;
  /** Whether it may begin before its predecessor has ended. */
  readonly overlap: boolean;
  /** Which kernel. @default {"direct"} */
  readonly kernel?: DirectKernel;
}

type MatrixShape = Pick<DirectShape, "rows" | "cols" | "output">;

function matrixShapes(config: ModelConfig): Readonly<Record<DirectMatrix, MatrixShape>> {
  const { hidden, heads, headDim, intermediate, vocab } = config;
  return {
    qkv: { rows: qkvRows(config), cols: hidden, output: "bf16" },
    output: { rows: hidden, cols: heads * headDim, output: "add" },
    gateUp: { rows: intermediate, cols: hidden, output: "swiglu" },
    down: { rows: hidden, cols: intermediate, output: "add" },
    head: { rows: vocab, cols: hidden, output: "f32" },
  };
}

/** Products of few tokens of one model. */
export class CudaDirect {
  readonly #shapes: Readonly<Record<DirectMatrix, MatrixShape>>;
  readonly #plans: ReadonlyMap<string, DirectPlan | StreamPlan>;

  /** Compiles or finds the kernels of steps of these numbers of tokens. */
  constructor(
    { context, kernels, config, sizes }: {
      readonly context: CudaContext;
      readonly kernels: KernelCache;
      readonly config: ModelConfig;
      readonly sizes: readonly number[];
    },
  ) {
    this.#shapes = matrixShapes(config);
    const plain = sizes.filter((tokens) => tokens <= MAX_DIRECT_TOKENS)
      .flatMap((tokens) => MATRICES.map((matrix) => ({ matrix, tokens, norm: false })));
    const normed = sizes.filter((tokens) => tokens <= MAX_NORM_TOKENS)
      .flatMap((tokens) => NORMED.map((matrix) => ({ matrix, tokens, norm: true })));
    const wanted = [...plain, ...normed];
    const shapes = wanted.map(({ matrix, tokens, norm }) => ({
      ...this.#shapes[matrix],
      tokens,
      ...(norm && { norm: { epsilon: config.normEps } }),
    }));
    const streamed = sizes.filter((tokens) => tokens >= MIN_STREAM_TOKENS && tokens <= MAX_STREAM_TOKENS)
      .flatMap((tokens) => MATRICES.map((matrix) => ({ matrix, tokens })));
    const plans = new DirectLinear(kernels, context.properties).plans(shapes);
    const streams = new StreamLinear(context, kernels);
    const streamShapes = streamed.map(({ matrix, tokens }) => ({ ...this.#shapes[matrix], tokens }));
    this.#plans = new Map<string, DirectPlan | StreamPlan>([
      ...wanted.map((one, index) => [keyOf(one), plans[index]] as const),
      ...STREAM_KINDS.flatMap((kernel) =>
        streams.plans(streamShapes, STREAM_CHOICES[kernel]).map((plan, index) =>
          [keyOf({ ...streamed[index], kernel }), plan] as const
        )
      ),
    ]);
  }

  /** Whether a GPU has the kernels and a model the sizes they want. */
  static supports(properties: CudaProperties, config: ModelConfig): boolean {
    return DirectLinear.supports(properties) && StreamLinear.supports(properties) &&
      Object.values(matrixShapes(config)).every(({ cols }) => cols % COLUMN_UNIT === 0);
  }

  /** Whether there is a kernel for so many tokens. */
  has(product: DirectKind): boolean {
    return this.#plans.has(keyOf(product));
  }

  /** Enqueues a product. @throws {ReferenceError} when there is no kernel for it. */
  run(stream: CudaStream, { matrix, tokens, weights, x, gain, out, overlap, kernel }: DirectProduct): void {
    const plan = this.#plans.get(keyOf({ matrix, tokens, norm: gain !== undefined, kernel }));
    if (plan === undefined) throw new ReferenceError(`Cannot multiply: no kernel for ${matrix} of ${tokens} tokens`);
    plan.run(stream, { weights, x, gain, out, programmatic: overlap });
  }
}

function keyOf({ matrix, tokens, norm = false, kernel = "direct" }: DirectKind): string {
  return `${matrix} ${tokens} ${kernel}${norm ? " norm" : ""}`;
}
