/**
 * Numbers of cuBLASLt's interface under the names that `cublasLt.h` gives them; `deno task ffi:headers` compares them where
 * that header is.
 *
 * @module
 */

/** Enumerators. */
export const BLAS = {
  CUDA_R_32F: 0,
  CUDA_R_16BF: 14,
  CUBLAS_COMPUTE_32F: 68,
  CUBLAS_OP_T: 1,
  CUBLAS_STATUS_NOT_SUPPORTED: 15,
  CUBLASLT_MATMUL_DESC_TRANSA: 3,
  CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: 1,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: 5,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: 6,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: 7,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: 8,
} as const;

/** Sizes and offsets of structures in bytes, as C expressions. */
export const BLAS_LAYOUT = {
  "sizeof(cublasLtMatmulHeuristicResult_t)": 96,
  "offsetof(cublasLtMatmulHeuristicResult_t, algo)": 0,
  "offsetof(cublasLtMatmulHeuristicResult_t, state)": 72,
} as const;
