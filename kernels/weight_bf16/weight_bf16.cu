// weight_bf16 - weights as the products take them: bf16, rounded to nearest even.
//
//   from_f32      out[i] = in[i]
//   from_f16      out[i] = in[i]
//   from_q8_0, from_q4_0, from_q4_1, from_q4_k, from_q5_k, from_q6_k
//                 out[i] = value i of stored blocks: scale * integer + minimum, rounded once to f32, as the file formats'
//                 own implementation (ggml) has it
//   random_bf16   out[i] = scale * a number that depends on seed and i alone: the sum of four uniform ones, mean 0,
//                 deviation 1, near a normal distribution
//   random_e4m3   the same as numbers of an fp8 pool
//   random_f32    out[i] = mean + scale * the same, f32
//   random_records records of packed weights (kernels/linear/cuda_layout.ts): random integers, f16 scales of 0.75 to 1.25 times
//                 `scale`, and where there are minimums those that give a mean of 0; one thread four bytes
// One thread an element, any count.

#include "kv_pool.cuh"

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

__device__ __forceinline__ float from_half(const unsigned char* at) {
  const u16 bits = (u16)(at[0] | at[1] << 8);
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

// Blocks of 32 values: f16 scale, 32 signed bytes.
extern "C" __global__ void __launch_bounds__(256) from_q8_0(const unsigned char* in, u16* out, u64 count) {
  const u64 i = index_of();
  if (i >= count) return;
  const unsigned char* block = in + i / 32 * 34;
  out[i] = to_bf16(from_half(block) * (float)(signed char)block[2 + i % 32]);
}

// Nibble of value i of 32: the first sixteen values are the low halves of sixteen bytes.
__device__ __forceinline__ int nibble_of(const unsigned char* quants, u32 i) { return quants[i % 16] >> (i / 16 * 4) & 15; }

// Blocks of 32 values: f16 scale, 32 nibbles.
extern "C" __global__ void __launch_bounds__(256) from_q4_0(const unsigned char* in, u16* out, u64 count) {
  const u64 i = index_of();
  if (i >= count) return;
  const unsigned char* block = in + i / 32 * 18;
  out[i] = to_bf16(from_half(block) * (float)(nibble_of(block + 2, i % 32) - 8));
}

// Blocks of 32 values: f16 scale, f16 minimum, 32 nibbles.
extern "C" __global__ void __launch_bounds__(256) from_q4_1(const unsigned char* in, u16* out, u64 count) {
  const u64 i = index_of();
  if (i >= count) return;
  const unsigned char* block = in + i / 32 * 20;
  out[i] = to_bf16(fmaf(from_half(block), (float)nibble_of(block + 4, i % 32), from_half(block + 2)));
}

// Blocks of 256 values: f16 scale and minimum, eight 6-bit scales and minimums in twelve bytes, then HIGH bytes of fifth bits,
// then 128 bytes of nibbles, a group of 32 in the low and the next in the high halves.
template <int HIGH>
__device__ __forceinline__ float grouped(const unsigned char* block, u32 i) {
  const unsigned char* packed = block + 4;
  const u32 group = i / 32;
  int scale, minimum;
  if (group < 4) {
    scale = packed[group] & 63;
    minimum = packed[group + 4] & 63;
  } else {
    const int low = packed[group + 4];
    scale = (low & 15) | packed[group - 4] >> 6 << 4;
    minimum = low >> 4 | packed[group] >> 6 << 4;
  }
  int value = block[16 + HIGH + group / 2 * 32 + i % 32] >> (group % 2 * 4) & 15;
  if (HIGH > 0) value += (block[16 + i % 32] >> group & 1) * 16;
  return fmaf(from_half(block) * (float)scale, (float)value, -(from_half(block + 2) * (float)minimum));
}

extern "C" __global__ void __launch_bounds__(256) from_q4_k(const unsigned char* in, u16* out, u64 count) {
  const u64 i = index_of();
  if (i < count) out[i] = to_bf16(grouped<0>(in + i / 256 * 144, i % 256));
}

extern "C" __global__ void __launch_bounds__(256) from_q5_k(const unsigned char* in, u16* out, u64 count) {
  const u64 i = index_of();
  if (i < count) out[i] = to_bf16(grouped<32>(in + i / 256 * 176, i % 256));
}

// Blocks of 256 values: 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales, f16 scale.
extern "C" __global__ void __launch_bounds__(256) from_q6_k(const unsigned char* in, u16* out, u64 count) {
  const u64 index = index_of();
  if (index >= count) return;
  const unsigned char* block = in + index / 256 * 210;
  const u32 i = index % 256, half = i / 128, quarter = i / 32 % 4, lane = i % 32;
  const int low = block[64 * half + 32 * (quarter & 1) + lane] >> (4 * (quarter >> 1)) & 15;
  const int high = block[128 + 32 * half + lane] >> (2 * quarter) & 3;
  const float scale = from_half(block + 208) * (float)(signed char)block[192 + i / 16];
  out[index] = to_bf16(scale * (float)((low | high << 4) - 32));
}

extern "C" __global__ void __launch_bounds__(256) random_bf16(u16* out, u64 count, u64 seed, float scale) {
  const u64 i = index_of();
  if (i < count) out[i] = to_bf16(scale * random_of(seed, i));
}

extern "C" __global__ void __launch_bounds__(256) random_e4m3(u8* out, u64 count, u64 seed, float scale) {
  const u64 i = index_of();
  if (i < count) out[i] = (u8)e4m3_bits(scale * random_of(seed, i));
}

extern "C" __global__ void __launch_bounds__(256) random_f32(float* out, u64 count, u64 seed, float mean, float scale) {
  const u64 i = index_of();
  if (i < count) out[i] = fmaf(scale, random_of(seed, i), mean);
}

__device__ __forceinline__ u32 half_pair(float low, float high) {
  u32 pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// A record has `words` words, of which the first `integers` hold integers and the sixteen behind them scales.
extern "C" __global__ void __launch_bounds__(256)
    random_records(u32* out, u64 count, u64 seed, u32 words, u32 integers, float scale) {
  const u64 i = index_of();
  if (i >= count) return;
  const u32 place = (u32)(i % words);
  const u64 bits = mixed(seed ^ mixed(place < integers + 16 ? i : i - 16));
  const float low = 0.75f + (float)(u32)(bits & 0xffff) * (0.5f / 65536.0f);
  const float high = 0.75f + (float)(u32)(bits >> 16 & 0xffff) * (0.5f / 65536.0f);
  if (place < integers) out[i] = (u32)bits;
  else if (place < integers + 16) out[i] = half_pair(scale * low, scale * high);
  else out[i] = half_pair(-7.5f * scale * low, -7.5f * scale * high);
}
