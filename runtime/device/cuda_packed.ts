/**
 * Products of few tokens with matrices that stay packed, and their expansion for products of many.
 *
 * @module
 */
import type { CudaProperties, CudaStream, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../../kernels/cuda/kernel_cache.ts";
import type { LinearOutput } from "../../kernels/linear/linear_direct_cuda.ts";
import {
  MAX_PACKED_TOKENS,
  PackedLinear,
  type PackedPlan,
  type PackedShape,
} from "../../kernels/linear/linear_packed_cuda.ts";
import type { ModelConfig } from "../model/model.ts";
import { addressAt } from "./cuda_address.ts";
import type { DirectMatrix } from "./cuda_direct.ts";
import type { CudaMatrix, PackedPart } from "./cuda_matrix.ts";
import { type CudaWeights, unpackMatrix } from "./cuda_weights.ts";

/** What each matrix leaves. */
const OUTPUTS: Readonly<Record<DirectMatrix, LinearOutput>> = {
  qkv: "bf16",
  output: "add",
  gateUp: "swiglu",
  down: "add",
  head: "f32",
};

/** Bytes of one output. */
const OUTPUT_BYTES: Readonly<Record<LinearOutput, number>> = { bf16: 2, f32: 4, add: 4, swiglu: 2 };

/** Whether the norm in front is part of a product. */
function normed(matrix: DirectMatrix): boolean {
  return matrix === "qkv" || matrix === "gateUp";
}

/** A matrix and how many tokens it multiplies. */
export interface PackedKind {
  /** Which matrix. */
  readonly matrix: DirectMatrix;
  /** Tokens. */
  readonly tokens: number;
  /** Its forms. */
  readonly weights: CudaMatrix<DevicePtr>;
}

/** One product. */
export interface PackedProduct extends PackedKind {
  /** Input, bf16 [tokens, columns]; f32 where the norm in front is part of the product. */
  readonly x: DevicePtr;
  /** Gain of that norm. */
  readonly gain?: DevicePtr;
  /** Output: bf16, f32 for `head`, f32 that is added to for `output` and `down`. */
  readonly out: DevicePtr;
  /** Whether it may begin before its predecessor has ended. */
  readonly overlap: boolean;
}

/** Products of packed matrices of one model. */
export class CudaPacked {
  readonly #linear: PackedLinear;
  readonly #epsilon: number;
  readonly #expanded: DevicePtr | undefined;
  readonly #plans: ReadonlyMap<string, PackedPlan>;

  /** Compiles or finds the kernels of steps of these numbers of tokens. */
  constructor(
    { kernels, properties, config, weights, sizes }: {
      readonly kernels: KernelCache;
      readonly properties: CudaProperties;
      readonly config: ModelConfig;
      readonly weights: CudaWeights;
      readonly sizes: readonly number[];
    },
  ) {
    this.#linear = new PackedLinear(kernels, properties);
    this.#epsilon = config.normEps;
    this.#expanded = weights.expanded;
    const matrices = [
      ...weights.layers.flatMap(({ qkv, output, gateUp, down }) => Object.entries({ qkv, output, gateUp, down })),
      ["head", weights.head],
    ] as readonly (readonly [DirectMatrix, CudaMatrix<DevicePtr>])[];
    const shapes = new Map<string, PackedShape>();
    for (const tokens of sizes.filter((size) => size <= MAX_PACKED_TOKENS)) {
      for (const [matrix, kept] of matrices) {
        for (const part of kept.packed ?? []) {
          const shape = this.#shape({ matrix, tokens, weights: kept }, part);
          if (this.#linear.has(shape)) shapes.set(keyOf(shape), shape);
        }
      }
    }
    const wanted = [...shapes];
    const plans = this.#linear.plans(wanted.map(([, shape]) => shape));
    this.#plans = new Map(wanted.map(([key], index) => [key, plans[index]]));
  }

  /** Whether there are kernels for a matrix and so many tokens. */
  has(kind: PackedKind): boolean {
    const { packed } = kind.weights;
    return packed !== undefined && packed.every((part) => this.#plans.has(keyOf(this.#shape(kind, part))));
  }

  /** Enqueues a product. @throws {ReferenceError} when there is no kernel for it. */
  run(stream: CudaStream, { x, gain, out, overlap, ...kind }: PackedProduct): void {
    const { matrix, weights: { packed = [] } } = kind;
    const bytes = OUTPUT_BYTES[OUTPUTS[matrix]];
    for (const part of packed) {
      const plan = this.#plans.get(keyOf(this.#shape(kind, part)));
      if (plan === undefined) {
        throw new ReferenceError(`Cannot multiply: no kernel for ${part.dtype} ${matrix} of ${kind.tokens} tokens`);
      }
      plan.run(stream, {
        weights: part.at,
        x,
        gain: normed(matrix) ? gain : undefined,
        out: addressAt(out, bytes * part.first),
        programmatic: overlap,
      });
    }
  }

  /** Enqueues the expansion of a matrix to bf16, until the next one. @throws {ReferenceError} when there is no room for it. */
  expand(stream: CudaStream, matrix: CudaMatrix<DevicePtr>): DevicePtr {
    if (this.#expanded === undefined) {
      throw new ReferenceError("Cannot expand packed weights: no room was kept for them");
    }
    unpackMatrix(this.#linear, stream, { matrix, to: this.#expanded });
    return this.#expanded;
  }

  #shape({ matrix, tokens, weights: { cols, rows } }: PackedKind, part: PackedPart<DevicePtr>): PackedShape {
    return {
      dtype: part.dtype,
      rows: part.rows,
      cols,
      tokens,
      output: OUTPUTS[matrix],
      outStride: rows,
      ...(normed(matrix) && { norm: { epsilon: this.#epsilon } }),
    };
  }
}

function keyOf({ dtype, rows, cols, tokens, output, outStride }: PackedShape): string {
  return [dtype, rows, cols, tokens, output, outStride].join(" ");
}
