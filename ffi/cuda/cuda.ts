/**
 * CUDA from TypeScript: the driver, the runtime compiler and cuBLASLt, with nothing but `u64` and `buffer` at the border, so
 * that `--allow-ffi` with the libraries' paths is enough.
 *
 * ```ts ignore
 * using context = CudaContext.open();
 * using stream = context.stream();
 * using module = context.load(cubin);
 * using memory = context.alloc(4096);
 * stream.launch(module.function("scale"), {
 *   grid: [4],
 *   block: [256],
 *   args: [{ ptr: memory.address }, { f32: 2 }, { i32: 1024 }],
 * });
 * stream.synchronize();
 * ```
 *
 * @module
 */
export { BlasLt, type BlasShape } from "./blas.ts";
export { type BlasArguments, BlasPlan } from "./blas_plan.ts";
export { DeviceBuffer, type DevicePtr, PinnedBuffer } from "./buffer.ts";
export { CudaContext, type CudaContextOptions, type CudaProperties } from "./context.ts";
export { CudaError, type CudaErrorOptions } from "./error.ts";
export { CudaEvent } from "./event.ts";
export { CudaGraph } from "./graph.ts";
export { type Extent, type KernelArg, type LaunchOptions } from "./launch_block.ts";
export { CudaLibraries, type FoundLibrary, type LibraryName } from "./libraries.ts";
export { CudaFunction, CudaModule } from "./module.ts";
export { Nvrtc, type NvrtcOutput, type NvrtcProgram } from "./nvrtc.ts";
export { CUDA_PATH_VARIABLE, SEARCH_VARIABLES } from "./search_path.ts";
export { CudaStream } from "./stream.ts";
export { TENSOR_BOX_COLUMNS, type TensorMapOptions } from "./tensor_map.ts";
