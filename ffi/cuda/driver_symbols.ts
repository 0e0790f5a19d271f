/**
 * Functions of the CUDA driver, `libcuda.so.1`. Handles and device addresses are `u64`; host memory that JavaScript owns is
 * a `buffer`; host addresses inside C structures come from {@linkcode HostMemory}.
 *
 * @module
 */
import { HOST_MEMORY_SYMBOLS } from "./host_memory.ts";

/** What is asked before the rest is loaded, so that an old driver is named and not one of the functions it lacks. */
export const DRIVER_VERSION_SYMBOLS = {
  // CUresult cuDriverGetVersion(int *driverVersion);
  cuDriverGetVersion: { parameters: ["buffer"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

/** The table. */
export const DRIVER_SYMBOLS = {
  ...HOST_MEMORY_SYMBOLS,
  ...DRIVER_VERSION_SYMBOLS,

  // CUresult cuInit(unsigned int Flags);
  cuInit: { parameters: ["u32"], result: "i32" },
  // CUresult cuGetErrorName(CUresult error, const char **pStr);
  cuGetErrorName: { parameters: ["i32", "buffer"], result: "i32" },

  // CUresult cuDeviceGetCount(int *count);
  cuDeviceGetCount: { parameters: ["buffer"], result: "i32" },
  // CUresult cuDeviceGet(CUdevice *device, int ordinal);
  cuDeviceGet: { parameters: ["buffer", "i32"], result: "i32" },
  // CUresult cuDeviceGetName(char *name, int len, CUdevice dev);
  cuDeviceGetName: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  // CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice dev);
  cuDeviceGetUuid_v2: { parameters: ["buffer", "i32"], result: "i32" },
  // CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev);
  cuDeviceTotalMem_v2: { parameters: ["buffer", "i32"], result: "i32" },
  // CUresult cuDeviceGetAttribute(int *pi, CUdevice_attribute attrib, CUdevice dev);
  cuDeviceGetAttribute: { parameters: ["buffer", "i32", "i32"], result: "i32" },

  // CUresult cuDevicePrimaryCtxRetain(CUcontext *pctx, CUdevice dev);
  cuDevicePrimaryCtxRetain: { parameters: ["buffer", "i32"], result: "i32" },
  // CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev);
  cuDevicePrimaryCtxRelease_v2: { parameters: ["i32"], result: "i32" },
  // CUresult cuCtxSetCurrent(CUcontext ctx);
  cuCtxSetCurrent: { parameters: ["u64"], result: "i32" },
  // CUresult cuCtxSynchronize(void);
  cuCtxSynchronize: { parameters: [], result: "i32" },
  // CUresult cuCtxGetStreamPriorityRange(int *leastPriority, int *greatestPriority);
  cuCtxGetStreamPriorityRange: { parameters: ["buffer", "buffer"], result: "i32" },

  // CUresult cuMemGetInfo_v2(size_t *free, size_t *total);
  cuMemGetInfo_v2: { parameters: ["buffer", "buffer"], result: "i32" },
  // CUresult cuMemAlloc_v2(CUdeviceptr *dptr, size_t bytesize);
  cuMemAlloc_v2: { parameters: ["buffer", "usize"], result: "i32" },
  // CUresult cuMemFree_v2(CUdeviceptr dptr);
  cuMemFree_v2: { parameters: ["u64"], result: "i32" },
  // CUresult cuMemHostRegister_v2(void *p, size_t bytesize, unsigned int Flags);
  cuMemHostRegister_v2: { parameters: ["buffer", "usize", "u32"], result: "i32" },
  // CUresult cuMemHostUnregister(void *p);
  cuMemHostUnregister: { parameters: ["buffer"], result: "i32" },
  // CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *pdptr, void *p, unsigned int Flags);
  cuMemHostGetDevicePointer_v2: { parameters: ["buffer", "buffer", "u32"], result: "i32" },
  // CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount, CUstream hStream);
  cuMemcpyHtoDAsync_v2: { parameters: ["u64", "buffer", "usize", "u64"], result: "i32" },
  // CUresult cuMemcpyDtoHAsync_v2(void *dstHost, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream);
  cuMemcpyDtoHAsync_v2: { parameters: ["buffer", "u64", "usize", "u64"], result: "i32" },
  // CUresult cuMemcpyAsync(CUdeviceptr dst, CUdeviceptr src, size_t ByteCount, CUstream hStream);
  cuMemcpyAsync: { parameters: ["u64", "u64", "usize", "u64"], result: "i32" },
  // CUresult cuMemsetD8Async(CUdeviceptr dstDevice, unsigned char uc, size_t N, CUstream hStream);
  cuMemsetD8Async: { parameters: ["u64", "u8", "usize", "u64"], result: "i32" },

  // CUresult cuStreamCreateWithPriority(CUstream *phStream, unsigned int flags, int priority);
  cuStreamCreateWithPriority: { parameters: ["buffer", "u32", "i32"], result: "i32" },
  // CUresult cuStreamDestroy_v2(CUstream hStream);
  cuStreamDestroy_v2: { parameters: ["u64"], result: "i32" },
  // CUresult cuStreamQuery(CUstream hStream);
  cuStreamQuery: { parameters: ["u64"], result: "i32" },
  // CUresult cuStreamSynchronize(CUstream hStream);
  cuStreamSynchronize: { parameters: ["u64"], result: "i32" },
  // CUresult cuStreamWaitEvent(CUstream hStream, CUevent hEvent, unsigned int Flags);
  cuStreamWaitEvent: { parameters: ["u64", "u64", "u32"], result: "i32" },
  // CUresult cuStreamBeginCapture_v2(CUstream hStream, CUstreamCaptureMode mode);
  cuStreamBeginCapture_v2: { parameters: ["u64", "i32"], result: "i32" },
  // CUresult cuStreamEndCapture(CUstream hStream, CUgraph *phGraph);
  cuStreamEndCapture: { parameters: ["u64", "buffer"], result: "i32" },

  // CUresult cuEventCreate(CUevent *phEvent, unsigned int Flags);
  cuEventCreate: { parameters: ["buffer", "u32"], result: "i32" },
  // CUresult cuEventDestroy_v2(CUevent hEvent);
  cuEventDestroy_v2: { parameters: ["u64"], result: "i32" },
  // CUresult cuEventRecord(CUevent hEvent, CUstream hStream);
  cuEventRecord: { parameters: ["u64", "u64"], result: "i32" },
  // CUresult cuEventQuery(CUevent hEvent);
  cuEventQuery: { parameters: ["u64"], result: "i32" },
  // CUresult cuEventSynchronize(CUevent hEvent);
  cuEventSynchronize: { parameters: ["u64"], result: "i32" },
  // CUresult cuEventElapsedTime(float *pMilliseconds, CUevent hStart, CUevent hEnd);
  cuEventElapsedTime: { parameters: ["buffer", "u64", "u64"], result: "i32" },

  // CUresult cuGraphGetNodes(CUgraph hGraph, CUgraphNode *nodes, size_t *numNodes);
  cuGraphGetNodes: { parameters: ["u64", "buffer", "buffer"], result: "i32" },
  // CUresult cuGraphInstantiateWithFlags(CUgraphExec *phGraphExec, CUgraph hGraph, unsigned long long flags);
  cuGraphInstantiateWithFlags: { parameters: ["buffer", "u64", "u64"], result: "i32" },
  // CUresult cuGraphUpload(CUgraphExec hGraphExec, CUstream hStream);
  cuGraphUpload: { parameters: ["u64", "u64"], result: "i32" },
  // CUresult cuGraphLaunch(CUgraphExec hGraphExec, CUstream hStream);
  cuGraphLaunch: { parameters: ["u64", "u64"], result: "i32" },
  // CUresult cuGraphDestroy(CUgraph hGraph);
  cuGraphDestroy: { parameters: ["u64"], result: "i32" },
  // CUresult cuGraphExecDestroy(CUgraphExec hGraphExec);
  cuGraphExecDestroy: { parameters: ["u64"], result: "i32" },

  // CUresult cuModuleLoadData(CUmodule *module, const void *image);
  cuModuleLoadData: { parameters: ["buffer", "buffer"], result: "i32" },
  // CUresult cuModuleUnload(CUmodule hmod);
  cuModuleUnload: { parameters: ["u64"], result: "i32" },
  // CUresult cuModuleGetFunction(CUfunction *hfunc, CUmodule hmod, const char *name);
  cuModuleGetFunction: { parameters: ["buffer", "u64", "buffer"], result: "i32" },
  // CUresult cuFuncGetAttribute(int *pi, CUfunction_attribute attrib, CUfunction hfunc);
  cuFuncGetAttribute: { parameters: ["buffer", "i32", "u64"], result: "i32" },
  // CUresult cuFuncSetAttribute(CUfunction hfunc, CUfunction_attribute attrib, int value);
  cuFuncSetAttribute: { parameters: ["u64", "i32", "i32"], result: "i32" },
  // CUresult cuFuncGetParamInfo(CUfunction func, size_t paramIndex, size_t *paramOffset, size_t *paramSize);
  cuFuncGetParamInfo: { parameters: ["u64", "usize", "buffer", "buffer"], result: "i32" },
  // CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *numBlocks, CUfunction func, int blockSize, size_t dynamicSMemSize);
  cuOccupancyMaxActiveBlocksPerMultiprocessor: { parameters: ["buffer", "u64", "i32", "usize"], result: "i32" },
  // CUresult cuTensorMapEncodeTiled(CUtensorMap *tensorMap, CUtensorMapDataType tensorDataType, cuuint32_t tensorRank, void *globalAddress, const cuuint64_t *globalDim, const cuuint64_t *globalStrides, const cuuint32_t *boxDim, const cuuint32_t *elementStrides, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle, CUtensorMapL2promotion l2Promotion, CUtensorMapFloatOOBfill oobFill);
  cuTensorMapEncodeTiled: {
    parameters: ["buffer", "i32", "u32", "u64", "buffer", "buffer", "buffer", "buffer", "i32", "i32", "i32", "i32"],
    result: "i32",
  },
  // CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f, void **kernelParams, void **extra);
  cuLaunchKernelEx: { parameters: ["buffer", "u64", "buffer", "u64"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

/** Those functions, loaded. */
export type DriverSymbols = Deno.DynamicLibrary<typeof DRIVER_SYMBOLS>["symbols"];
