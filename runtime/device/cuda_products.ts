/**
 * The matrix products of a model on a GPU.
 *
 * @module
 */
import { BlasLt, type BlasShape, type CudaContext, type CudaStream, type DevicePtr } from "../../ffi/cuda/cuda.ts";
import { addressAt } from "./cuda_address.ts";
import { productRows } from "./cuda_buckets.ts";
import type { CudaTimer } from "./cuda_timer.ts";

/** Rows of every product in deterministic mode: one algorithm, and so one order of summation, for any number of rows. */
export const DETERMINISTIC_ROWS = 64;

/** D[rows, n] = A[rows, k] W[n, k]^T, row-major, A and W bf16. */
export interface Product extends Pick<BlasShape, "n" | "k" | "out" | "add"> {
  /** Rows of A and D; both have room for {@linkcode productRows} of them, or whole {@linkcode DETERMINISTIC_ROWS}. */
  readonly rows: number;
  /** A. */
  readonly a: DevicePtr;
  /** W. */
  readonly w: DevicePtr;
  /** D. */
  readonly d: DevicePtr;
}

/** A product whose algorithm is to be chosen. */
export interface TunedProduct extends Omit<Product, "w"> {
  /** Matrices of the shape: several, so that each is read from memory and not from a cache. */
  readonly weights: readonly DevicePtr[];
}

/** Computes products on one stream. */
export class CudaProducts implements Disposable {
  readonly #blas: BlasLt;
  readonly #deterministic: boolean;

  /** Starts the library. `deterministic` gives a row the same bits whatever rows are beside it. */
  constructor(context: CudaContext, { deterministic }: { readonly deterministic: boolean }) {
    this.#blas = new BlasLt(context);
    this.#deterministic = deterministic;
  }

  /** Enqueues a product. Rows of D up to the room that the product states may change. */
  run(stream: CudaStream, { rows, n, k, out, add, a, w, d }: Product): void {
    if (!this.#deterministic) {
      this.#blas.plan({ m: productRows(rows), n, k, out, add }).run(stream, { a, w, d });
      return;
    }
    const plan = this.#blas.plan({ m: DETERMINISTIC_ROWS, n, k, out, add });
    for (let row = 0; row < rows; row += DETERMINISTIC_ROWS) {
      plan.run(stream, {
        a: addressAt(a, 2 * row * k),
        w,
        d: addressAt(d, (out === "f32" ? 4 : 2) * row * n),
      });
    }
  }

  /**
   * Takes the fastest of the library's algorithms for a number of rows, by timing. What is in D changes; A should hold numbers
   * as they come.
   *
   * @returns its time for all the matrices, ms.
   */
  tune(stream: CudaStream, timer: CudaTimer, { rows, weights, n, k, out, add, a, d }: TunedProduct): number {
    const plan = this.#blas.plan({ m: productRows(rows), n, k, out, add });
    const times = Array.from({ length: plan.algorithms }, (_, algorithm) => {
      plan.choose(algorithm);
      return timer.ms(() => {
        for (const w of weights) plan.run(stream, { a, w, d });
      });
    });
    const least = Math.min(...times);
    plan.choose(times.indexOf(least));
    return least;
  }

  /** Closes the library. */
  [Symbol.dispose](): void {
    this.#blas[Symbol.dispose]();
  }
}
