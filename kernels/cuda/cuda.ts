/**
 * CUDA kernels: compiling, keeping and loading them.
 *
 * @module
 */
export { archOf, checkCapability, compileCuda, type CompileOptions, type CudaKernel } from "./compile.ts";
export { HEADERS } from "./headers.ts";
export { KernelCache, type KernelCacheCounts, type KernelCacheOptions, kernelDirectory } from "./kernel_cache.ts";
