/**
 * Products of few tokens with matrices that stay packed, and their expansion for products of many.
 *
 * @module
 */
import type { CudaContext, CudaStream, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../../kernels/cuda/kernel_cache.ts";
import type { LinearOutput } from "../../kernels/linear/linear_direct_cuda.ts";
import { PackedLinear, type PackedPlan, type PackedShape } from "../../kernels/linear/linear_packed_cuda.ts";
import { MAX_WIDE_TOKENS, WideLinear, type WidePlan } from "../../kernels/linear/linear_packed_wide_cuda.ts";
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

/** Most tokens that take turns; beyond, expanding the matrix is less work. */
const MOST_TOKENS = 256;

/** Bytes of one output. */
const OUTPUT_BYTES: Readonly<Record<LinearOutput, number>> = { bf16: 2, f32: 4, add: 4, swiglu: 2 };

/** A matrix and how many tokens it multiplies. */
export interface PackedKind {
  /** Which matrix. */
  readonly matrix: DirectMatrix;
  /** Tokens; above {@linkcode MAX_WIDE_TOKENS} a multiple of that. */
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
export class CudaPacked implements Disposable {
  readonly #linear: PackedLinear;
  readonly #wide: WideLinear;
  readonly #epsilon: number;
  readonly #expanded: DevicePtr | undefined;
  readonly #plans: ReadonlyMap<string, PackedPlan | WidePlan>;

  /** Compiles or finds the kernels of steps of these numbers of tokens. */
  constructor(
    { context, kernels, config, weights, sizes }: {
      readonly context: CudaContext;
      readonly kernels: KernelCache;
      readonly config: ModelConfig;
      readonly weights: CudaWeights;
      readonly sizes: readonly number[];
    },
  ) {
    using opened = new DisposableStack();
    this.#linear = new PackedLinear(kernels, context.properties);
    this.#wide = opened.use(new WideLinear(context, kernels));
    this.#epsilon = config.normEps;
    this.#expanded = weights.expanded;
    const matrices = [
      ...weights.layers.flatMap(({ qkv, output, gateUp, down }) => Object.entries({ qkv, output, gateUp, down })),
      ["head", weights.head],
    ] as readonly (readonly [DirectMatrix, CudaMatrix<DevicePtr>])[];
    const narrow = new Map<string, PackedShape>();
    const wide = new Map<string, PackedShape>();
    for (const tokens of sizes.filter((size) => size <= MAX_WIDE_TOKENS || size % MAX_WIDE_TOKENS === 0)) {
      for (const [matrix, kept] of matrices) {
        const kind = { matrix, tokens, weights: kept };
        for (const part of kept.packed ?? []) {
          const shape = this.#shape(kind, part);
          (this.#isNarrow(kind) ? narrow : wide).set(keyOf(shape), shape);
        }
      }
    }
    const plans = [...this.#linear.plans([...narrow.values()]), ...this.#wide.plans([...wide.values()])];
    this.#plans = new Map([...narrow.keys(), ...wide.keys()].map((key, index) => [key, plans[index]]));
    opened.move();
  }

  /** Whether there are kernels for a matrix and so many tokens. */
  has(kind: PackedKind): boolean {
    const { tokens, weights: { packed } } = kind;
    if (tokens > MOST_TOKENS || tokens > MAX_WIDE_TOKENS && tokens % MAX_WIDE_TOKENS !== 0) return false;
    return packed !== undefined && packed.every((part) => this.#plans.has(keyOf(this.#shape(kind, part))));
  }

  /** Whether the norm in front is part of a product. */
  takesNorm(kind: PackedKind): boolean {
    return (kind.matrix === "qkv" || kind.matrix === "gateUp") && this.#isNarrow(kind);
  }

  /** Enqueues a product. @throws {ReferenceError} when there is no kernel for it. */
  run(stream: CudaStream, { x, gain, out, overlap, ...kind }: PackedProduct): void {
    const { matrix, tokens, weights: { packed = [], rows, cols } } = kind;
    const bytes = OUTPUT_BYTES[OUTPUTS[matrix]];
    for (const part of packed) {
      const plan = this.#plans.get(keyOf(this.#shape(kind, part)));
      if (plan === undefined) {
        throw new ReferenceError(`Cannot multiply: no kernel for ${part.dtype} ${matrix} of ${tokens} tokens`);
      }
      // Many tokens take turns; each reads the weights again, and they are few bytes.
      for (let first = 0; first < tokens; first += MAX_WIDE_TOKENS) {
        plan.run(stream, {
          weights: part.at,
          x: addressAt(x, 2 * first * cols),
          gain: this.takesNorm(kind) ? gain : undefined,
          out: addressAt(out, bytes * (first * rows + part.first)),
          programmatic: overlap,
        });
      }
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

  /** Frees the memory that products share. */
  [Symbol.dispose](): void {
    this.#wide[Symbol.dispose]();
  }

  /** Whether the inputs of a product fit into shared memory, as the kernel for very few tokens wants them. */
  #isNarrow(kind: PackedKind): boolean {
    const { packed = [] } = kind.weights;
    return packed.every((part) => this.#linear.has(this.#plainShape(kind, part)));
  }

  #shape(kind: PackedKind, part: PackedPart<DevicePtr>): PackedShape {
    return { ...this.#plainShape(kind, part), ...(this.takesNorm(kind) && { norm: { epsilon: this.#epsilon } }) };
  }

  #plainShape(
    { matrix, tokens, weights: { cols, rows } }: PackedKind,
    { dtype, rows: some }: PackedPart<DevicePtr>,
  ): PackedShape {
    const together = Math.min(tokens, MAX_WIDE_TOKENS);
    return { dtype, rows: some, cols, tokens: together, output: OUTPUTS[matrix], outStride: rows };
  }
}

function keyOf({ dtype, rows, cols, tokens, output, outStride }: PackedShape): string {
  return [dtype, rows, cols, tokens, output, outStride].join(" ");
}
