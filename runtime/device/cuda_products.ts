/**
 * The matrix products of a model on a GPU.
 *
 * @module
 */
import { BlasLt, type BlasShape, type CudaContext, type CudaStream, type DevicePtr } from "../../ffi/cuda/cuda.ts";
import { addressAt } from "./cuda_address.ts";
import { productRows } from "./cuda_buckets.ts";

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
export interface TunedProduct extends Omit<Product, "rows" | "w"> {
  /** Matrices of the shape, as many as a step multiplies with in a row: each is read from memory, not from a cache. */
  readonly weights: readonly DevicePtr[];
  /** Row counts. */
  readonly rowCounts: readonly number[];
}

/** Matrices that time is taken over. */
const TUNED_MATRICES = 8;

/** Computes products on one stream. */
export class CudaProducts implements Disposable {
  readonly #context: CudaContext;
  readonly #blas: BlasLt;
  readonly #deterministic: boolean;

  /** Starts the library. `deterministic` gives a row the same bits whatever rows are beside it. */
  constructor(context: CudaContext, { deterministic }: { readonly deterministic: boolean }) {
    this.#context = context;
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
   * Takes the fastest of the library's algorithms for every row count, by timing. What is in D changes; A should hold numbers
   * as they come. Does nothing in deterministic mode.
   */
  tune(stream: CudaStream, { rowCounts, weights, n, k, out, add, a, d }: TunedProduct): void {
    if (this.#deterministic) return;
    using begin = this.#context.event({ timing: true });
    using end = this.#context.event({ timing: true });
    const matrices = weights.slice(0, TUNED_MATRICES);
    for (const rows of new Set(rowCounts.map(productRows))) {
      const plan = this.#blas.plan({ m: rows, n, k, out, add });
      const times = Array.from({ length: plan.algorithms }, (_, algorithm) => {
        plan.choose(algorithm);
        // The first run loads what it needs.
        for (const run of [false, true]) {
          stream.record(begin);
          for (const w of run ? matrices : matrices.slice(0, 1)) plan.run(stream, { a, w, d });
          stream.record(end);
          stream.synchronize();
        }
        return end.msSince(begin);
      });
      plan.choose(times.indexOf(Math.min(...times)));
    }
  }

  /** Closes the library. */
  [Symbol.dispose](): void {
    this.#blas[Symbol.dispose]();
  }
}
