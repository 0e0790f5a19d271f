/**
 * The matrix products of a model's layers, each by what is fastest for its tokens: the library, a kernel of our own for bf16
 * weights, or one for packed weights.
 *
 * @module
 */
import type { CudaStream, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { CudaDirect, DirectKernel, DirectMatrix } from "./cuda_direct.ts";
import { type CudaMatrix, formOf } from "./cuda_matrix.ts";
import type { CudaPacked } from "./cuda_packed.ts";
import type { CudaProducts, Product } from "./cuda_products.ts";
import type { CudaTimer } from "./cuda_timer.ts";

/** Time of a launch that norms or activates a few tokens, ms. */
const LAUNCH_MS = 0.0012;

/** What computes a product. */
type Way = "library" | DirectKernel | "packed";

/** What was chosen for a matrix and a number of tokens. */
interface Choice {
  /** The product alone. */
  readonly plain: Way;
  /** The product with the norm in front of it, where that is one kernel. */
  readonly normed?: "direct" | "packed";
}

/** What a product is chosen by. */
interface LinearKind {
  /** Which matrix. */
  readonly matrix: DirectMatrix;
  /** Tokens. */
  readonly tokens: number;
  /** Its forms. */
  readonly weights: CudaMatrix<DevicePtr>;
}

/** One product of a step. */
export interface LinearProduct extends LinearKind {
  /** Sizes for the library, input and output. */
  readonly operands: Omit<Product, "rows" | "w">;
  /** Where gate and up go when their activation is part of the product, bf16 [tokens, intermediate]. */
  readonly gated: DevicePtr;
  /** Whether it may begin before its predecessor has ended. */
  readonly overlap: boolean;
}

/** One product of a step with the norm in front of it. */
export interface NormedProduct extends LinearKind {
  /** Residual stream, f32 [tokens, hidden]. */
  readonly x: DevicePtr;
  /** Gain of the norm, f32 [hidden]. */
  readonly gain: DevicePtr;
  /** Output; of gate and up with their activation. */
  readonly out: DevicePtr;
  /** Whether it may begin before its predecessor has ended. */
  readonly overlap: boolean;
}

/** What is timed. */
export interface LinearTuning {
  /** Which matrix. */
  readonly matrix: DirectMatrix;
  /** Tokens. */
  readonly tokens: number;
  /** Matrices of the same forms: several, so that each is read from memory and not from a cache. */
  readonly matrices: readonly CudaMatrix<DevicePtr>[];
  /** As of a product. */
  readonly operands: Omit<Product, "rows" | "w">;
  /** As of a normed product. */
  readonly x: DevicePtr;
  /** As of a normed product. */
  readonly gain: DevicePtr;
}

/** What computes products; all stay the caller's. */
export interface LinearParts {
  /** The library. */
  readonly products: CudaProducts;
  /** Kernels for bf16 weights. */
  readonly direct?: CudaDirect;
  /** Kernels for packed weights; wanted where matrices are packed. */
  readonly packed?: CudaPacked;
}

/** Chooses and enqueues products. */
export class CudaLinear {
  readonly #parts: LinearParts;
  readonly #choices = new Map<string, Choice>();

  /** Until something is chosen by {@linkcode tune}, the library computes everything. */
  constructor(parts: LinearParts) {
    this.#parts = parts;
  }

  /** Enqueues a product. @returns whether the activation of gate and up is done too. */
  run(stream: CudaStream, product: LinearProduct): boolean {
    const { direct, packed } = this.#parts;
    const { matrix, tokens, weights, operands, gated, overlap } = product;
    const own = { matrix, tokens, x: operands.a, out: matrix === "gateUp" ? gated : operands.d, overlap };
    const way = this.#choices.get(keyOf(product))?.plain ?? "library";
    if (way === "packed" && packed !== undefined) {
      packed.run(stream, { ...own, weights });
      return true;
    }
    if (way !== "library" && way !== "packed" && direct !== undefined && weights.full !== undefined) {
      direct.run(stream, { ...own, weights: weights.full, kernel: way });
      return true;
    }
    this.#parts.products.run(stream, { ...operands, rows: tokens, w: this.#full(stream, weights) });
    return false;
  }

  /** Enqueues a product with the norm in front of it where that is one kernel. @returns whether it is. */
  tryNormed(stream: CudaStream, product: NormedProduct): boolean {
    const { direct, packed } = this.#parts;
    const { weights } = product;
    const way = this.#choices.get(keyOf(product))?.normed;
    if (way === "packed" && packed !== undefined) packed.run(stream, product);
    else if (way === "direct" && direct !== undefined && weights.full !== undefined) {
      direct.run(stream, { ...product, weights: weights.full });
    } else return false;
    return true;
  }

  /** Chooses what computes products of matrices of a form, by timing. What is in their output changes. */
  tune(stream: CudaStream, timer: CudaTimer, tuning: LinearTuning): void {
    const { matrix, tokens, matrices, operands } = tuning;
    const [weights] = matrices;
    const launches = LAUNCH_MS * matrices.length;
    const hasNorm = matrix === "qkv" || matrix === "gateUp";
    let choice: Choice = { plain: "library" };
    let least = this.#libraryMs(stream, timer, tuning);
    // The library's gate and up want one more launch for the activation.
    if (matrix === "gateUp") least += launches;
    const { direct, packed } = this.#parts;
    const directMs = (kernel: DirectKernel, norm = false): number => {
      if (direct === undefined || !direct.has({ matrix, tokens, norm, kernel })) return Infinity;
      if (matrices.some(({ full }) => full === undefined)) return Infinity;
      const { x, gain } = norm ? tuning : { x: operands.a, gain: undefined };
      return timer.ms(() => {
        for (const { full } of matrices) {
          if (full !== undefined) {
            direct.run(stream, { matrix, tokens, weights: full, x, gain, out: operands.d, overlap: true, kernel });
          }
        }
      });
    };
    for (const kernel of ["direct", "stream", "streamPairs"] as const) {
      const own = directMs(kernel);
      if (own < least) [choice, least] = [{ plain: kernel }, own];
    }
    if (hasNorm) {
      least += launches;
      const withNorm = directMs("direct", true);
      if (withNorm < least) [choice, least] = [{ ...choice, normed: "direct" }, withNorm];
    }
    if (packed?.has({ matrix, tokens, weights })) {
      const withNorm = packed.takesNorm({ matrix, tokens, weights });
      const { x, gain } = withNorm ? tuning : { x: operands.a, gain: undefined };
      const time = timer.ms(() => {
        for (const weights of matrices) {
          packed.run(stream, { matrix, tokens, weights, x, gain, out: operands.d, overlap: true });
        }
      });
      if (withNorm && time < least) choice = { ...choice, normed: "packed" };
      if (!withNorm && time + (hasNorm ? launches : 0) < least) choice = { plain: "packed" };
    }
    this.#choices.set(keyOf({ matrix, tokens, weights }), choice);
  }

  /** What was chosen instead of the library, for people. */
  get chosen(): readonly string[] {
    return [...this.#choices].flatMap(([key, { plain, normed }]) => {
      const ways = [...plain === "library" ? [] : [plain], ...normed === undefined ? [] : [`norm ${normed}`]];
      return ways.length === 0 ? [] : [`${key}: ${ways.join(", ")}`];
    });
  }

  #libraryMs(stream: CudaStream, timer: CudaTimer, { tokens, matrices, operands }: LinearTuning): number {
    const { products } = this.#parts;
    const weights = matrices.flatMap(({ full }) => full === undefined ? [] : [full]);
    const product = { ...operands, rows: tokens };
    if (weights.length === matrices.length) return products.tune(stream, timer, { ...product, weights });
    // Its algorithm is chosen for one expanded matrix, then the whole is timed.
    products.tune(stream, timer, { ...product, weights: [this.#full(stream, matrices[0])] });
    return timer.ms(() => {
      for (const matrix of matrices) products.run(stream, { ...product, w: this.#full(stream, matrix) });
    });
  }

  #full(stream: CudaStream, weights: CudaMatrix<DevicePtr>): DevicePtr {
    if (weights.full !== undefined) return weights.full;
    const { packed } = this.#parts;
    if (packed === undefined) throw new ReferenceError("Cannot multiply: nothing expands packed weights");
    return packed.expand(stream, weights);
  }
}

function keyOf({ matrix, tokens, weights }: LinearKind): string {
  return `${matrix} ${tokens} of ${formOf(weights)}`;
}
