/**
 * The products of a step with few tokens, which take as long as reading the weights: on Hopper by kernels of our own, from
 * a copy of the weights in tiles.
 *
 * @module
 */
import type { CudaContext, CudaProperties, CudaStream, DeviceBuffer, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../../kernels/cuda/kernel_cache.ts";
import { tiledBytes } from "../../kernels/linear/cuda_layout.ts";
import { maxTokens, SkinnyLinear, type SkinnyPlan, type SkinnyShape } from "../../kernels/linear/linear_cuda.ts";
import type { ModelConfig } from "../model/model.ts";
import { addressAt } from "./cuda_address.ts";
import { type CudaWeights, qkvRows } from "./cuda_weights.ts";

/** Matrices begin at multiples of this. */
const ALIGNMENT = 1024;
/** Most tokens whose norm is part of the product behind it. */
const MAX_NORM_TOKENS = 8;
/** Rows of x begin at multiples of 16 bytes. */
const COLUMN_UNIT = 8;

/** Matrices of a model by what they compute; `gateUp` includes the activation. */
export type SkinnyMatrix = "qkv" | "output" | "gateUp" | "down" | "head";

/** One product. */
export interface SkinnyProduct {
  /** Which matrix. */
  readonly matrix: SkinnyMatrix;
  /** Of which layer; 0 for the head. */
  readonly layer: number;
  /** Tokens. */
  readonly tokens: number;
  /** Input, bf16 [tokens, columns]; f32 with `gain`. */
  readonly x: DevicePtr;
  /** Gain of the norm that goes before it, f32 [columns]; {@linkcode CudaSkinny.norms} tells when it may. */
  readonly gain?: DevicePtr;
  /** Output: bf16, f32 for `head`, f32 that is added to for `output` and `down`. */
  readonly out: DevicePtr;
  /** Whether it may begin before its predecessor has ended. */
  readonly overlap: boolean;
}

type MatrixShape = Pick<SkinnyShape, "dtype" | "rows" | "cols" | "output">;

function matrixShapes(config: ModelConfig): Readonly<Record<SkinnyMatrix, MatrixShape>> {
  const { hidden, heads, headDim, intermediate, vocab } = config;
  const dtype = "BF16";
  return {
    qkv: { dtype, rows: qkvRows(config), cols: hidden, output: "bf16" },
    output: { dtype, rows: hidden, cols: heads * headDim, output: "add" },
    gateUp: { dtype, rows: intermediate, cols: hidden, output: "swiglu" },
    down: { dtype, rows: hidden, cols: intermediate, output: "add" },
    head: { dtype, rows: vocab, cols: hidden, output: "f32" },
  };
}

/** Bytes of a matrix in tiles; of gate and up the second lies behind the first. */
function matrixBytes(shape: MatrixShape): number {
  return (shape.output === "swiglu" ? 2 : 1) * tiledBytes(shape);
}

/** Products of few tokens of one model; owns the tiles. */
export class CudaSkinny implements Disposable {
  /** Bytes of the tiles. */
  readonly bytes: number;
  readonly #linear: SkinnyLinear;
  readonly #config: ModelConfig;
  readonly #shapes: Readonly<Record<SkinnyMatrix, MatrixShape>>;
  readonly #buffer: DeviceBuffer;
  readonly #places = new Map<string, number>();
  readonly #plans = new Map<string, SkinnyPlan>();

  /** Tiles a model's weights. @throws {CudaError} when they do not fit into memory beside the weights. */
  constructor(
    { context, kernels, config, weights, stream }: {
      readonly context: CudaContext;
      readonly kernels: KernelCache;
      readonly config: ModelConfig;
      readonly weights: CudaWeights;
      readonly stream: CudaStream;
    },
  ) {
    this.#linear = new SkinnyLinear(kernels, context.properties);
    this.#config = config;
    this.#shapes = matrixShapes(config);
    const sources: { readonly matrix: SkinnyMatrix; readonly layer: number; readonly from: DevicePtr }[] = [
      ...weights.layers.flatMap((block, layer) =>
        (["qkv", "output", "gateUp", "down"] as const).map((matrix) => ({ matrix, layer, from: block[matrix] }))
      ),
      { matrix: "head", layer: 0, from: weights.head },
    ];
    let next = 0;
    for (const { matrix, layer } of sources) {
      this.#places.set(`${matrix} ${layer}`, next);
      next = Math.ceil((next + matrixBytes(this.#shapes[matrix])) / ALIGNMENT) * ALIGNMENT;
    }
    this.bytes = next;
    using opened = new DisposableStack();
    this.#buffer = opened.use(context.alloc(next));
    for (const { matrix, layer, from } of sources) {
      const shape = this.#shapes[matrix];
      const to = this.#weights(matrix, layer);
      this.#linear.pack(stream, { ...shape, from, to });
      if (shape.output !== "swiglu") continue;
      this.#linear.pack(stream, {
        ...shape,
        from: addressAt(from, 2 * shape.rows * shape.cols),
        to: addressAt(to, tiledBytes(shape)),
      });
    }
    stream.synchronize();
    opened.move();
  }

  /** Whether a GPU has the kernels and a model the sizes they want. */
  static supports(properties: CudaProperties, config: ModelConfig): boolean {
    return SkinnyLinear.supports(properties) &&
      Object.values(matrixShapes(config)).every(({ cols }) => cols % COLUMN_UNIT === 0);
  }

  /** Whether steps of so many tokens are among those it computes. */
  takes(tokens: number): boolean {
    return tokens >= 1 && tokens <= maxTokens("BF16");
  }

  /** Whether a norm in front of the product can be part of it. */
  norms(tokens: number): boolean {
    return tokens <= MAX_NORM_TOKENS;
  }

  /** Compiles or finds the kernels of steps of these sizes. */
  prepare(sizes: readonly number[]): void {
    const wanted = sizes.filter((tokens) => this.takes(tokens)).flatMap((tokens) =>
      (["qkv", "output", "gateUp", "down", "head"] as const).map((matrix) => ({
        matrix,
        tokens,
        norm: this.norms(tokens) && (matrix === "qkv" || matrix === "gateUp"),
      }))
    );
    const plans = this.#linear.plans(wanted.map((one) => this.#shape(one)));
    wanted.forEach((one, index) => this.#plans.set(JSON.stringify(one), plans[index]));
  }

  /** Enqueues a product. */
  run(stream: CudaStream, { matrix, layer, tokens, x, gain, out, overlap }: SkinnyProduct): void {
    const wanted = { matrix, tokens, norm: gain !== undefined };
    const key = JSON.stringify(wanted);
    const plan = this.#plans.get(key) ?? this.#linear.plan(this.#shape(wanted));
    this.#plans.set(key, plan);
    plan.run(stream, { weights: this.#weights(matrix, layer), x, out, gain, programmatic: overlap });
  }

  /** Frees the tiles. */
  [Symbol.dispose](): void {
    this.#buffer[Symbol.dispose]();
  }

  #shape(
    { matrix, tokens, norm }: { readonly matrix: SkinnyMatrix; readonly tokens: number; readonly norm: boolean },
  ): SkinnyShape {
    return {
      ...this.#shapes[matrix],
      tokens,
      ...(norm && { norm: { epsilon: this.#config.normEps } }),
    };
  }

  #weights(matrix: SkinnyMatrix, layer: number): DevicePtr {
    const place = this.#places.get(`${matrix} ${layer}`);
    if (place === undefined) throw new ReferenceError(`Cannot multiply: layer ${layer} has no matrix ${matrix}`);
    return this.#buffer.at(place);
  }
}
