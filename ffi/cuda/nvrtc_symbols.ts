/**
 * Functions of NVRTC, the CUDA runtime compiler, `libnvrtc.so`. A program is a `u64` handle.
 *
 * @module
 */
import { HOST_MEMORY_SYMBOLS } from "./host_memory.ts";

/** The table. */
export const NVRTC_SYMBOLS = {
  ...HOST_MEMORY_SYMBOLS,

  // const char *nvrtcGetErrorString(nvrtcResult result);
  nvrtcGetErrorString: { parameters: ["i32"], result: "u64" },
  // nvrtcResult nvrtcVersion(int *major, int *minor);
  nvrtcVersion: { parameters: ["buffer", "buffer"], result: "i32" },
  // nvrtcResult nvrtcGetNumSupportedArchs(int *numArchs);
  nvrtcGetNumSupportedArchs: { parameters: ["buffer"], result: "i32" },
  // nvrtcResult nvrtcGetSupportedArchs(int *supportedArchs);
  nvrtcGetSupportedArchs: { parameters: ["buffer"], result: "i32" },
  // nvrtcResult nvrtcCreateProgram(nvrtcProgram *prog, const char *src, const char *name, int numHeaders, const char *const *headers, const char *const *includeNames);
  nvrtcCreateProgram: { parameters: ["buffer", "buffer", "buffer", "i32", "buffer", "buffer"], result: "i32" },
  // nvrtcResult nvrtcDestroyProgram(nvrtcProgram *prog);
  nvrtcDestroyProgram: { parameters: ["buffer"], result: "i32" },
  // nvrtcResult nvrtcCompileProgram(nvrtcProgram prog, int numOptions, const char *const *options);
  nvrtcCompileProgram: { parameters: ["u64", "i32", "buffer"], result: "i32" },
  // nvrtcResult nvrtcGetCUBINSize(nvrtcProgram prog, size_t *cubinSizeRet);
  nvrtcGetCUBINSize: { parameters: ["u64", "buffer"], result: "i32" },
  // nvrtcResult nvrtcGetCUBIN(nvrtcProgram prog, char *cubin);
  nvrtcGetCUBIN: { parameters: ["u64", "buffer"], result: "i32" },
  // nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram prog, size_t *logSizeRet);
  nvrtcGetProgramLogSize: { parameters: ["u64", "buffer"], result: "i32" },
  // nvrtcResult nvrtcGetProgramLog(nvrtcProgram prog, char *log);
  nvrtcGetProgramLog: { parameters: ["u64", "buffer"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;
