/**
 * Matrix products of one shape.
 *
 * @module
 */
import type { BlasLt } from "./blas.ts";
import { BLAS } from "./blas_constants.ts";
import type { DevicePtr } from "./buffer.ts";
import { CudaError } from "./error.ts";
import type { CudaStream } from "./stream.ts";

/** Where the matrices of one product lie, each at a multiple of 16 bytes. */
export interface BlasArguments {
  /** A[M, K], bf16. */
  readonly a: DevicePtr;
  /** W[N, K], bf16. */
  readonly w: DevicePtr;
  /** D[M, N]. */
  readonly d: DevicePtr;
}

/** Handles that describe a product: the operation, and the layouts of W, A and D. */
export interface BlasDescriptors {
  /** `cublasLtMatmulDesc_t`. */
  readonly operation: bigint;
  /** `cublasLtMatrixLayout_t` of W. */
  readonly w: bigint;
  /** `cublasLtMatrixLayout_t` of A. */
  readonly a: bigint;
  /** `cublasLtMatrixLayout_t` of D. */
  readonly d: bigint;
}

/** Products of one shape. Belongs to its {@linkcode BlasLt}, which makes and frees it. */
export class BlasPlan {
  readonly #blas: BlasLt;
  readonly #descriptors: BlasDescriptors;
  readonly #results: readonly Uint8Array<ArrayBuffer>[];
  readonly #alpha = new Float32Array([1]);
  readonly #beta: Float32Array<ArrayBuffer>;
  readonly #context: string;
  #chosen = 0;

  /** Takes the descriptors and the library's answers; {@linkcode BlasLt.plan} makes these. */
  constructor(
    blas: BlasLt,
    descriptors: BlasDescriptors,
    rest: { readonly results: readonly Uint8Array<ArrayBuffer>[]; readonly beta: number; readonly context: string },
  ) {
    if (rest.results.length === 0) {
      throw new CudaError({
        call: "cublasLtMatmulAlgoGetHeuristic",
        code: BLAS.CUBLAS_STATUS_NOT_SUPPORTED,
        codeName: "no algorithm",
        context: `plan ${rest.context}`,
      });
    }
    this.#blas = blas;
    this.#descriptors = descriptors;
    this.#results = rest.results;
    this.#beta = new Float32Array([rest.beta]);
    this.#context = `compute ${rest.context}`;
  }

  /** Algorithms that {@linkcode choose} chooses from, by the library's estimate the fastest first. */
  get algorithms(): number {
    return this.#results.length;
  }

  /** The chosen one; 0 at first. */
  get chosen(): number {
    return this.#chosen;
  }

  /** Has later runs use algorithm `index`; results may differ in their last bits. @throws {RangeError} */
  choose(index: number): void {
    if (!(Number.isInteger(index) && index >= 0 && index < this.algorithms)) {
      throw new RangeError(`Cannot choose an algorithm: wanted 0 to ${this.algorithms - 1}, got ${index}`);
    }
    this.#chosen = index;
  }

  /** Enqueues one product. @throws {CudaError} @throws {ReferenceError} */
  run(stream: CudaStream, { a, w, d }: BlasArguments): void {
    const blas = this.#blas;
    const result = this.#results[this.#chosen];
    const { operation, ...layouts } = this.#descriptors;
    const { address, bytes } = blas.workspace;
    const code = blas.symbols.cublasLtMatmul(
      blas.handle,
      operation,
      this.#alpha,
      w,
      layouts.w,
      a,
      layouts.a,
      this.#beta,
      d,
      layouts.d,
      d,
      layouts.d,
      result,
      address,
      BigInt(bytes),
      stream.handle,
    );
    if (code !== 0) {
      throw blas.error(code, { call: "cublasLtMatmul", context: this.#context, stream: stream.handle });
    }
  }
}
