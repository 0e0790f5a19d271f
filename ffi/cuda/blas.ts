/**
 * Matrix products by cuBLASLt.
 *
 * @module
 */
import { BLAS, BLAS_LAYOUT } from "./blas_constants.ts";
import { type BlasDescriptors, BlasPlan } from "./blas_plan.ts";
import { BLAS_SYMBOLS, type BlasSymbols } from "./blas_symbols.ts";
import type { DeviceBuffer } from "./buffer.ts";
import type { CudaContext } from "./context.ts";
import { CudaError, type FailedCall, isLost } from "./error.ts";
import { HostMemory } from "./host_memory.ts";
import { openLibrary } from "./open_library.ts";
import type { ContextScope } from "./owned_handle.ts";
import type { StreamHandle } from "./stream.ts";

/** A product D[M, N] = A[M, K] W[N, K]ᵀ, all row-major; A and W bf16, accumulated in f32. */
export interface BlasShape {
  /** Rows of A and D. */
  readonly m: number;
  /** Rows of W, columns of D. */
  readonly n: number;
  /** Columns of A and W. */
  readonly k: number;
  /** Element type of D. */
  readonly out: "bf16" | "f32";
  /** Whether the product is added to what D holds. */
  readonly add: boolean;
}

/** Scratch memory; what the library asks for at most on Hopper. */
const DEFAULT_WORKSPACE_BYTES = 32 * 2 ** 20;

/** Algorithms asked for. */
const MAX_ALGORITHMS = 16;

/** Alignment of every matrix that callers promise. */
const ALIGNMENT_BYTES = 16;

const DATA_TYPES = { f32: BLAS.CUDA_R_32F, bf16: BLAS.CUDA_R_16BF } as const;

/** Attributes that hold the alignment of each matrix. */
const ALIGNMENTS = [
  BLAS.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
  BLAS.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
  BLAS.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
  BLAS.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
] as const;

/** `cublasLtMatmulHeuristicResult_t`: an algorithm, and whether it will do. */
const RESULT_BYTES = BLAS_LAYOUT["sizeof(cublasLtMatmulHeuristicResult_t)"];
const RESULT_STATE_OFFSET = BLAS_LAYOUT["offsetof(cublasLtMatmulHeuristicResult_t, state)"];

/** cuBLASLt on one GPU with its scratch memory; products of one stream at a time. Closed on dispose. */
export class BlasLt implements Disposable {
  readonly #library: Deno.DynamicLibrary<typeof BLAS_SYMBOLS>;
  readonly #host: HostMemory;
  readonly #scope: ContextScope;
  readonly #handle: bigint;
  readonly #workspace: DeviceBuffer;
  readonly #plans = new Map<string, BlasPlan>();
  readonly #undo: (() => void)[] = [];
  #open = true;

  /**
   * Loads the library and allocates its scratch memory.
   *
   * @param options.workspaceBytes Scratch memory. @default {33554432}
   * @throws {Deno.errors.NotFound} when there is no cuBLASLt for the driver. @throws {CudaError}
   */
  constructor(context: CudaContext, options: { readonly workspaceBytes?: number } = {}) {
    const { workspaceBytes = DEFAULT_WORKSPACE_BYTES } = options;
    const maxMajor = Number.parseInt(context.properties.driverVersion);
    this.#scope = context.scope;
    this.#library = openLibrary(context.libraries.get("blasLt", { maxMajor }), BLAS_SYMBOLS);
    this.#undo.push(() => this.#library.close());
    this.#host = new HostMemory(this.#library.symbols);
    try {
      context.makeCurrent();
      const handle = new BigUint64Array(1);
      this.check(this.symbols.cublasLtCreate(handle), { call: "cublasLtCreate", context: "start cuBLASLt" });
      this.#handle = handle[0];
      this.#undo.push(() => this.#library.symbols.cublasLtDestroy(this.#handle));
      this.#workspace = context.alloc(workspaceBytes);
      this.#undo.push(() => this.#workspace[Symbol.dispose]());
    } catch (error) {
      this.#giveBack();
      throw error;
    }
    // A context that is disposed first takes this along.
    this.#scope.adopt(this);
  }

  /** The library's version, 10000 times the major plus 100 times the minor plus the patch number. */
  get version(): number {
    return Number(this.symbols.cublasLtGetVersion());
  }

  /** Its functions. @throws {ReferenceError} after dispose. */
  get symbols(): BlasSymbols {
    if (!this.#open) throw new ReferenceError("Cannot use cuBLASLt: it is disposed");
    return this.#library.symbols;
  }

  /** The library's handle. */
  get handle(): bigint {
    return this.#handle;
  }

  /** Its scratch memory. */
  get workspace(): DeviceBuffer {
    return this.#workspace;
  }

  /**
   * Prepares products of one shape; the same shape gives the same plan.
   *
   * @throws {RangeError} when a size is not a positive integer. @throws {CudaError} when the library knows no algorithm.
   */
  plan(shape: BlasShape): BlasPlan {
    const { m, n, k, out, add } = shape;
    const key = `${m}x${n}x${k} ${out} ${add}`;
    const known = this.#plans.get(key);
    if (known !== undefined) return known;
    for (const [axis, size] of Object.entries({ M: m, N: n, K: k })) {
      if (!(Number.isSafeInteger(size) && size > 0)) {
        throw new RangeError(`Cannot plan a matrix product: ${axis} must be a positive integer, got ${size}`);
      }
    }
    this.#scope.enter();
    const plan = this.#prepare(shape, `plan a product of M ${m}, N ${n}, K ${k}`);
    this.#plans.set(key, plan);
    return plan;
  }

  /** Throws unless `code` is success. @throws {CudaError} */
  check(code: number, failed: FailedCall): void {
    if (code !== 0) throw this.error(code, failed);
  }

  /** The error for a result. With `stream`, it also tells whether the context is dead, which the library does not say. */
  error(code: number, { stream, ...failed }: FailedCall & { readonly stream?: StreamHandle }): CudaError {
    const codeName = this.#host.text(this.#library.symbols.cublasLtGetStatusName(code));
    const lost = stream !== undefined && isLost(this.#scope.driver.symbols.cuStreamQuery(stream));
    return new CudaError({ ...failed, code, codeName, lost });
  }

  /** Gives everything back, the plans too. Idempotent. */
  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    this.#scope.release(this);
    this.#giveBack();
  }

  #giveBack(): void {
    for (const undo of this.#undo.splice(0).reverse()) undo();
  }

  /** The library counts in columns, so Dᵀ[N, M] = W[N, K] Aᵀ[K, M] is what it computes: W is its A, and transposed. */
  #prepare({ m, n, k, out, add }: BlasShape, context: string): BlasPlan {
    const { symbols } = this;
    const operation = this.#made({
      call: "cublasLtMatmulDescCreate",
      context,
      make: (handle) => symbols.cublasLtMatmulDescCreate(handle, BLAS.CUBLAS_COMPUTE_32F, BLAS.CUDA_R_32F),
      destroy: (handle) => this.#library.symbols.cublasLtMatmulDescDestroy(handle),
    });
    const set = symbols.cublasLtMatmulDescSetAttribute(
      operation,
      BLAS.CUBLASLT_MATMUL_DESC_TRANSA,
      new Int32Array([BLAS.CUBLAS_OP_T]),
      4n,
    );
    this.check(set, { call: "cublasLtMatmulDescSetAttribute", context });
    const layout = (type: "bf16" | "f32", [rows, columns]: readonly [number, number]) =>
      this.#made({
        call: "cublasLtMatrixLayoutCreate",
        context,
        make: (handle) =>
          symbols.cublasLtMatrixLayoutCreate(handle, DATA_TYPES[type], BigInt(rows), BigInt(columns), BigInt(rows)),
        destroy: (handle) => this.#library.symbols.cublasLtMatrixLayoutDestroy(handle),
      });
    const layouts = { w: layout("bf16", [k, n]), a: layout("bf16", [k, m]), d: layout(out, [n, m]) };
    const results = this.#algorithms({ operation, ...layouts }, context);
    return new BlasPlan(this, { operation, ...layouts }, { results, beta: add ? 1 : 0, context: context.slice(5) });
  }

  #algorithms({ operation, w, a, d }: BlasDescriptors, context: string): Uint8Array<ArrayBuffer>[] {
    const { symbols } = this;
    const created = new BigUint64Array(1);
    this.check(symbols.cublasLtMatmulPreferenceCreate(created), { call: "cublasLtMatmulPreferenceCreate", context });
    const preference = created[0];
    try {
      const set = (attribute: number, value: Uint32Array<ArrayBuffer> | BigUint64Array<ArrayBuffer>) => {
        const bytes = BigInt(value.byteLength);
        const code = symbols.cublasLtMatmulPreferenceSetAttribute(preference, attribute, value, bytes);
        this.check(code, { call: "cublasLtMatmulPreferenceSetAttribute", context });
      };
      set(BLAS.CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, new BigUint64Array([BigInt(this.#workspace.bytes)]));
      for (const attribute of ALIGNMENTS) set(attribute, new Uint32Array([ALIGNMENT_BYTES]));
      const results = new Uint8Array(RESULT_BYTES * MAX_ALGORITHMS);
      const count = new Int32Array(1);
      const { cublasLtMatmulAlgoGetHeuristic: ask } = symbols;
      const code = ask(this.#handle, operation, w, a, d, d, preference, MAX_ALGORITHMS, results, count);
      this.check(code, { call: "cublasLtMatmulAlgoGetHeuristic", context });
      return Array.from(
        { length: count[0] },
        (_, index) => results.slice(RESULT_BYTES * index, RESULT_BYTES * (index + 1)),
      )
        .filter((result) => new DataView(result.buffer).getInt32(RESULT_STATE_OFFSET, true) === 0);
    } finally {
      symbols.cublasLtMatmulPreferenceDestroy(preference);
    }
  }

  /** Makes a descriptor that lives as long as this. */
  #made({ make, destroy, ...failed }: FailedCall & {
    readonly make: (handle: BigUint64Array<ArrayBuffer>) => number;
    readonly destroy: (handle: bigint) => number;
  }): bigint {
    const handle = new BigUint64Array(1);
    this.check(make(handle), failed);
    this.#undo.push(() => destroy(handle[0]));
    return handle[0];
  }
}
