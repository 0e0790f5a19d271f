// step_plan - what a step needs besides the model's kernels: its tables, queries that leave the device, its end.
//
//   patch_tables   tables[pairs[2 i]] = pairs[2 i + 1] for i below *count; any grid of 256 threads
//   queries_out    out[i] = q[tokens[i]] as f32, rows of `width`; grid [rows]
//   queries_gather out[i] = q[tokens[i]], bf16 rows of `width`; grid [rows]
//   queries_in     q[i] = in[i] rounded to bf16
//   signal_done    *word = *step, seen by the host after everything before it on the stream; one thread
//   signal_value   *word = value, the same
//
// All move data; the host's memory is written with 4-byte stores over the bus.

typedef unsigned short u16;
typedef unsigned int u32;

extern "C" __global__ void __launch_bounds__(256) patch_tables(const int* count, const int* pairs, int* tables) {
  const int patches = *count;
  for (int i = blockIdx.x * 256 + threadIdx.x; i < patches; i += gridDim.x * 256) {
    tables[pairs[2 * i]] = pairs[2 * i + 1];
  }
}

extern "C" __global__ void __launch_bounds__(256)
    queries_out(const u16* q, const int* tokens, float* out, int width) {
  const u16* from = q + (long long)tokens[blockIdx.x] * width;
  float* to = out + (long long)blockIdx.x * width;
  for (int i = threadIdx.x; i < width; i += 256) to[i] = __int_as_float((u32)from[i] << 16);
}

extern "C" __global__ void __launch_bounds__(256)
    queries_gather(const u16* q, const int* tokens, u16* out, int width) {
  const u16* from = q + (long long)tokens[blockIdx.x] * width;
  u16* to = out + (long long)blockIdx.x * width;
  for (int i = threadIdx.x; i < width; i += 256) to[i] = from[i];
}

extern "C" __global__ void __launch_bounds__(256) queries_in(const float* in, u16* q, int count) {
  const int i = blockIdx.x * 256 + threadIdx.x;
  if (i >= count) return;
  u16 bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(in[i]));
  q[i] = bits;
}

extern "C" __global__ void signal_done(const u32* step, u32* word) {
  asm volatile("fence.acq_rel.sys;" ::: "memory");
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(word), "r"(*step) : "memory");
}

extern "C" __global__ void signal_value(u32 value, u32* word) {
  asm volatile("fence.acq_rel.sys;" ::: "memory");
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}
