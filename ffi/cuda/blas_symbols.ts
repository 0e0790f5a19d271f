/**
 * Functions of cuBLASLt, `libcublasLt.so`. Descriptors are `u64` handles.
 *
 * @module
 */
import { HOST_MEMORY_SYMBOLS } from "./host_memory.ts";

/** The table. */
export const BLAS_SYMBOLS = {
  ...HOST_MEMORY_SYMBOLS,

  // const char *cublasLtGetStatusName(cublasStatus_t status);
  cublasLtGetStatusName: { parameters: ["i32"], result: "u64" },
  // size_t cublasLtGetVersion(void);
  cublasLtGetVersion: { parameters: [], result: "usize" },
  // cublasStatus_t cublasLtCreate(cublasLtHandle_t *lightHandle);
  cublasLtCreate: { parameters: ["buffer"], result: "i32" },
  // cublasStatus_t cublasLtDestroy(cublasLtHandle_t lightHandle);
  cublasLtDestroy: { parameters: ["u64"], result: "i32" },

  // cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *matmulDesc, cublasComputeType_t computeType, cudaDataType_t scaleType);
  cublasLtMatmulDescCreate: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  // cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t matmulDesc, cublasLtMatmulDescAttributes_t attr, const void *buf, size_t sizeInBytes);
  cublasLtMatmulDescSetAttribute: { parameters: ["u64", "i32", "buffer", "usize"], result: "i32" },
  // cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t matmulDesc);
  cublasLtMatmulDescDestroy: { parameters: ["u64"], result: "i32" },

  // cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *matLayout, cudaDataType type, uint64_t rows, uint64_t cols, int64_t ld);
  cublasLtMatrixLayoutCreate: { parameters: ["buffer", "i32", "u64", "u64", "i64"], result: "i32" },
  // cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t matLayout);
  cublasLtMatrixLayoutDestroy: { parameters: ["u64"], result: "i32" },

  // cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *pref);
  cublasLtMatmulPreferenceCreate: { parameters: ["buffer"], result: "i32" },
  // cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t pref, cublasLtMatmulPreferenceAttributes_t attr, const void *buf, size_t sizeInBytes);
  cublasLtMatmulPreferenceSetAttribute: { parameters: ["u64", "i32", "buffer", "usize"], result: "i32" },
  // cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t pref);
  cublasLtMatmulPreferenceDestroy: { parameters: ["u64"], result: "i32" },

  // cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t lightHandle, cublasLtMatmulDesc_t operationDesc, cublasLtMatrixLayout_t Adesc, cublasLtMatrixLayout_t Bdesc, cublasLtMatrixLayout_t Cdesc, cublasLtMatrixLayout_t Ddesc, cublasLtMatmulPreference_t preference, int requestedAlgoCount, cublasLtMatmulHeuristicResult_t *heuristicResultsArray, int *returnAlgoCount);
  cublasLtMatmulAlgoGetHeuristic: {
    parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32", "buffer", "buffer"],
    result: "i32",
  },
  // cublasStatus_t cublasLtMatmul(cublasLtHandle_t lightHandle, cublasLtMatmulDesc_t computeDesc, const void *alpha, const void *A, cublasLtMatrixLayout_t Adesc, const void *B, cublasLtMatrixLayout_t Bdesc, const void *beta, const void *C, cublasLtMatrixLayout_t Cdesc, void *D, cublasLtMatrixLayout_t Ddesc, const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspaceSizeInBytes, cudaStream_t stream);
  cublasLtMatmul: {
    parameters: [
      "u64",
      "u64",
      "buffer",
      "u64",
      "u64",
      "u64",
      "u64",
      "buffer",
      "u64",
      "u64",
      "u64",
      "u64",
      "buffer",
      "u64",
      "usize",
      "u64",
    ],
    result: "i32",
  },
} as const satisfies Deno.ForeignLibraryInterface;

/** Those functions, loaded. */
export type BlasSymbols = Deno.DynamicLibrary<typeof BLAS_SYMBOLS>["symbols"];
