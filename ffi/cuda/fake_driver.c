// Stands for libcuda.so.1 in tests: notes calls, keeps device memory on the host, fails where it is told to.
// Functions without a body of their own are generated from the table and end this file.
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char noted[1 << 16];
static size_t noted_bytes;
static char failing[64];
static int failing_code;
static int version = 13000;
static int devices = 2;
static int capability = 9;
static int event_state;
static int live;
static uint64_t next_handle = 0x1000;
static int parameter_bytes[64];
static int parameters;

static void note(const char *format, ...) {
  va_list args;
  va_start(args, format);
  noted_bytes += vsnprintf(noted + noted_bytes, sizeof noted - noted_bytes, format, args);
  va_end(args);
}

static int called(const char *name) {
  note("%s\n", name);
  return strcmp(failing, name) == 0 ? failing_code : 0;
}

static int make(const char *name, uint64_t *handle) {
  int code = called(name);
  if (code == 0) {
    *handle = ++next_handle;
    live++;
  }
  return code;
}

static int drop(const char *name) {
  live--;
  return called(name);
}

// What tests use.
void fake_reset(void) {
  noted_bytes = 0;
  noted[0] = 0;
  failing[0] = 0;
  version = 13000;
  devices = 2;
  capability = 9;
  event_state = 0;
  live = 0;
  parameters = 0;
}
int fake_take_notes(char *out, int bytes) {
  int count = (int)noted_bytes < bytes ? (int)noted_bytes : bytes;
  memcpy(out, noted, count);
  noted_bytes = 0;
  return count;
}
void fake_fail(const char *name, int code) {
  strncpy(failing, name, sizeof failing - 1);
  failing_code = code;
}
void fake_version(int value) { version = value; }
void fake_devices(int value) { devices = value; }
void fake_capability(int value) { capability = value; }
void fake_event_state(int value) { event_state = value; }
int fake_live(void) { return live; }
void fake_parameters(const int *bytes, int count) {
  parameters = count;
  memcpy(parameter_bytes, bytes, count * sizeof(int));
}

int cuDriverGetVersion(int *value) { *value = version; return 0; }
int cuGetErrorName(int error, const char **text) {
  switch (error) {
    case 2: *text = "CUDA_ERROR_OUT_OF_MEMORY"; return 0;
    case 100: *text = "CUDA_ERROR_NO_DEVICE"; return 0;
    case 700: *text = "CUDA_ERROR_ILLEGAL_ADDRESS"; return 0;
    case 901: *text = "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"; return 0;
    default: *text = NULL; return 1;
  }
}
int cuDeviceGetCount(int *count) { *count = devices; return called("cuDeviceGetCount"); }
int cuDeviceGet(int *device, int ordinal) { *device = 40 + ordinal; return called("cuDeviceGet"); }
int cuDeviceGetName(char *name, int bytes, int device) {
  snprintf(name, bytes, "Fake %d", device);
  return called("cuDeviceGetName");
}
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
  for (int i = 0; i < 16; i++) uuid[i] = i + device - 40;
  return called("cuDeviceGetUuid_v2");
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)5 << 32; return called("cuDeviceTotalMem_v2"); }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  switch (attribute) {
    case 16: *value = 132; break;
    case 38: *value = 62914560; break;
    case 75: *value = capability; break;
    case 76: *value = 0; break;
    case 97: *value = 232448; break;
    default: return 1;
  }
  return called("cuDeviceGetAttribute");
}
int cuDevicePrimaryCtxRetain(uint64_t *context, int device) { return make("cuDevicePrimaryCtxRetain", context); }
int cuDevicePrimaryCtxRelease_v2(int device) { return drop("cuDevicePrimaryCtxRelease_v2"); }
int cuCtxGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = (size_t)3 << 32; *total = (size_t)5 << 32; return 0; }
int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
  int code = called("cuMemAlloc_v2");
  if (code != 0) return code;
  *address = (uint64_t)aligned_alloc(256, (bytes + 255) / 256 * 256);
  live++;
  return 0;
}
int cuMemFree_v2(uint64_t address) { free((void *)address); return drop("cuMemFree_v2"); }
int cuMemHostRegister_v2(void *memory, size_t bytes, unsigned flags) {
  note("register %zu bytes, %zu past a page, flags %u\n", bytes, (size_t)memory % 4096, flags);
  int code = called("cuMemHostRegister_v2");
  if (code == 0) live++;
  return code;
}
int cuMemHostUnregister(void *memory) { return drop("cuMemHostUnregister"); }
int cuMemHostGetDevicePointer_v2(uint64_t *address, void *memory, unsigned flags) {
  *address = (uint64_t)memory;
  return called("cuMemHostGetDevicePointer_v2");
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, uint64_t stream) {
  int code = called("cuMemcpyHtoDAsync_v2");
  if (code == 0) memcpy((void *)to, from, bytes);
  return code;
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, uint64_t stream) {
  int code = called("cuMemcpyDtoHAsync_v2");
  if (code == 0) memcpy(to, (void *)from, bytes);
  return code;
}
int cuMemcpyAsync(uint64_t to, uint64_t from, size_t bytes, uint64_t stream) {
  int code = called("cuMemcpyAsync");
  if (code == 0) memcpy((void *)to, (void *)from, bytes);
  return code;
}
int cuMemsetD8Async(uint64_t to, unsigned char byte, size_t bytes, uint64_t stream) {
  int code = called("cuMemsetD8Async");
  if (code == 0) memset((void *)to, byte, bytes);
  return code;
}
int cuStreamCreateWithPriority(uint64_t *stream, unsigned flags, int priority) {
  note("stream flags %u priority %d\n", flags, priority);
  return make("cuStreamCreateWithPriority", stream);
}
int cuStreamDestroy_v2(uint64_t stream) { return drop("cuStreamDestroy_v2"); }
int cuStreamQuery(uint64_t stream) { called("cuStreamQuery"); return event_state; }
int cuStreamEndCapture(uint64_t stream, uint64_t *graph) {
  int code = called("cuStreamEndCapture");
  *graph = 0;
  if (code == 0) {
    *graph = ++next_handle;
    live++;
  }
  return code;
}
int cuEventCreate(uint64_t *event, unsigned flags) {
  note("event flags %u\n", flags);
  return make("cuEventCreate", event);
}
int cuEventDestroy_v2(uint64_t event) { return drop("cuEventDestroy_v2"); }
int cuEventQuery(uint64_t event) { called("cuEventQuery"); return event_state; }
int cuEventElapsedTime(float *ms, uint64_t start, uint64_t end) {
  *ms = (float)(end - start);
  return called("cuEventElapsedTime");
}
int cuGraphGetNodes(uint64_t graph, uint64_t *nodes, size_t *count) { *count = 3; return called("cuGraphGetNodes"); }
int cuGraphInstantiateWithFlags(uint64_t *executable, uint64_t graph, unsigned long long flags) {
  return make("cuGraphInstantiateWithFlags", executable);
}
int cuGraphDestroy(uint64_t graph) { return drop("cuGraphDestroy"); }
int cuGraphExecDestroy(uint64_t graph) { return drop("cuGraphExecDestroy"); }
int cuModuleLoadData(uint64_t *module, const void *image) {
  note("image %.4s\n", (const char *)image);
  return make("cuModuleLoadData", module);
}
int cuModuleUnload(uint64_t module) { return drop("cuModuleUnload"); }
int cuModuleGetFunction(uint64_t *function, uint64_t module, const char *name) {
  note("function %s\n", name);
  *function = 0xf00d;
  return called("cuModuleGetFunction");
}
int cuFuncGetAttribute(int *value, int attribute, uint64_t function) { *value = 10 * attribute; return 0; }
int cuFuncSetAttribute(uint64_t function, int attribute, int value) {
  note("attribute %d = %d\n", attribute, value);
  return called("cuFuncSetAttribute");
}
int cuFuncGetParamInfo(uint64_t function, size_t index, size_t *offset, size_t *bytes) {
  if (index >= (size_t)parameters) return 1;
  *offset = 0;
  *bytes = parameter_bytes[index];
  return 0;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, uint64_t function, int threads, size_t shared) {
  *blocks = threads / 64 + (int)(shared / 1024);
  return called("cuOccupancyMaxActiveBlocksPerMultiprocessor");
}
int cuTensorMapEncodeTiled(void *map, int type, unsigned rank, uint64_t address, const uint64_t *sizes,
                           const uint64_t *strides, const unsigned *box, const unsigned *steps, int interleave,
                           int swizzle, int promotion, int fill) {
  note("map type %d rank %u at %llx of %llu x %llu every %llu in %u x %u by %u, %u: %d %d %d %d aligned %d\n", type, rank,
       (unsigned long long)address, (unsigned long long)sizes[1], (unsigned long long)sizes[0],
       (unsigned long long)strides[0], box[1], box[0], steps[0], steps[1], interleave, swizzle, promotion, fill,
       (uint64_t)map % 64 == 0);
  memset(map, 0x5a, 128);
  return called("cuTensorMapEncodeTiled");
}

// As cuda.h declares them.
typedef union {
  char pad[64];
  int cooperative;
  struct { unsigned x, y, z; } clusterDim;
  int programmaticStreamSerializationAllowed;
} CUlaunchAttributeValue;
typedef struct {
  int id;
  char pad[8 - sizeof(int)];
  CUlaunchAttributeValue value;
} CUlaunchAttribute;
typedef struct {
  unsigned gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes;
  void *hStream;
  CUlaunchAttribute *attrs;
  unsigned numAttrs;
} CUlaunchConfig;

int cuLaunchKernelEx(const CUlaunchConfig *c, uint64_t function, void **arguments, void **extra) {
  note("launch %llx grid %u,%u,%u block %u,%u,%u shared %u stream %llx extra %d\n", (unsigned long long)function,
       c->gridDimX, c->gridDimY, c->gridDimZ, c->blockDimX, c->blockDimY, c->blockDimZ, c->sharedMemBytes,
       (unsigned long long)c->hStream, extra != NULL);
  for (unsigned i = 0; i < c->numAttrs; i++) {
    const CUlaunchAttribute *a = &c->attrs[i];
    if (a->id == 4) note("cluster %u,%u,%u\n", a->value.clusterDim.x, a->value.clusterDim.y, a->value.clusterDim.z);
    else note("attribute %d = %d\n", a->id, a->value.cooperative);
  }
  for (int i = 0; i < parameters; i++) {
    note("arg ");
    for (int b = 0; b < parameter_bytes[i]; b++) note("%02x", ((unsigned char *)arguments[i])[b]);
    note("\n");
  }
  return called("cuLaunchKernelEx");
}
