// weight_bf16 - weights as the products take them: bf16, rounded to nearest even.
//
//   from_f32      out[i] = in[i]
//   from_f16      out[i] = in[i]
//   random_bf16   out[i] = scale * a number that depends on seed and i alone: the sum of four uniform ones, mean 0,
//                 deviation 1, near a normal distribution
//   random_f32    out[i] = mean + scale * the same, f32
// One thread an element, any count.

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

__device__ __forceinline__ u16 to_bf16(float x) {
  u16 bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}

__device__ __forceinline__ u64 index_of() { return (u64)blockIdx.x * 256 + threadIdx.x; }

__device__ __forceinline__ u64 mixed(u64 x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

__device__ __forceinline__ float random_of(u64 seed, u64 i) {
  const u64 bits = mixed(seed ^ mixed(i));
  float sum = -2.0f;
#pragma unroll
  for (int part = 0; part < 4; part++) sum += (float)(u32)(bits >> (16 * part) & 0xffff) * (1.0f / 65536.0f);
  return sum * 1.7320508f;
}

extern "C" __global__ void __launch_bounds__(256) from_f32(const float* in, u16* out, u64 count) {
  const u64 i = index_of();
  if (i < count) out[i] = to_bf16(in[i]);
}

extern "C" __global__ void __launch_bounds__(256) from_f16(const u16* in, u16* out, u64 count) {
  const u64 i = index_of();
  if (i >= count) return;
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(in[i]));
  out[i] = to_bf16(value);
}

extern "C" __global__ void __launch_bounds__(256) random_bf16(u16* out, u64 count, u64 seed, float scale) {
  const u64 i = index_of();
  if (i < count) out[i] = to_bf16(scale * random_of(seed, i));
}

extern "C" __global__ void __launch_bounds__(256) random_f32(float* out, u64 count, u64 seed, float mean, float scale) {
  const u64 i = index_of();
  if (i < count) out[i] = fmaf(scale, random_of(seed, i), mean);
}
