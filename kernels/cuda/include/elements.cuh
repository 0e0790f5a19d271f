// Element types, their conversions, and accesses of up to 16 bytes a thread for kernels that move rows.
//
// Step data is read through plain loads: a kernel that starts before its predecessor has ended must not read what the
// predecessor writes through the read-only cache, so no pointer here is `__restrict__`.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;

// Stored bits of a bf16, a type of its own so that loads can tell it from integers.
struct bf16 {
  u16 bits;
};

#define INFINITE __uint_as_float(0x7f800000u)
#define NOT_A_NUMBER __uint_as_float(0x7fc00000u)
#define LARGEST_BF16 3.3895313892515355e38f

__device__ __forceinline__ float bf16_low(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float bf16_high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

// Two values rounded to nearest even, `low` in the low half. Values that round beyond the largest bf16 become infinite.
__device__ __forceinline__ u32 bf16_pair(float low, float high) {
  u32 pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// Held within the finite bf16; NaN stays NaN.
__device__ __forceinline__ float clamp_bf16(float x) {
  return x > LARGEST_BF16 ? LARGEST_BF16 : x < -LARGEST_BF16 ? -LARGEST_BF16 : x;
}

// N consecutive values from an address aligned to N elements or 16 bytes, whichever is less.
template <int N> __device__ __forceinline__ void load(const float* from, float (&v)[N]) {
  if constexpr (N % 4 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + i);
      v[i] = four.x, v[i + 1] = four.y, v[i + 2] = four.z, v[i + 3] = four.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; i++) v[i] = from[i];
  }
}

template <int N> __device__ __forceinline__ void load(const bf16* from, float (&v)[N]) {
  if constexpr (N % 8 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 8) {
      const uint4 four = *reinterpret_cast<const uint4*>(from + i);
      v[i] = bf16_low(four.x), v[i + 1] = bf16_high(four.x);
      v[i + 2] = bf16_low(four.y), v[i + 3] = bf16_high(four.y);
      v[i + 4] = bf16_low(four.z), v[i + 5] = bf16_high(four.z);
      v[i + 6] = bf16_low(four.w), v[i + 7] = bf16_high(four.w);
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; i++) v[i] = __uint_as_float((u32)from[i].bits << 16);
  }
}

template <int N> __device__ __forceinline__ void store(float* to, const float (&v)[N]) {
  if constexpr (N % 4 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      *reinterpret_cast<float4*>(to + i) = make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; i++) to[i] = v[i];
  }
}

template <int N> __device__ __forceinline__ void store(bf16* to, const float (&v)[N]) {
  if constexpr (N % 8 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 8) {
      *reinterpret_cast<uint4*>(to + i) = make_uint4(
          bf16_pair(v[i], v[i + 1]), bf16_pair(v[i + 2], v[i + 3]), bf16_pair(v[i + 4], v[i + 5]), bf16_pair(v[i + 6], v[i + 7]));
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; i++) to[i].bits = (u16)bf16_pair(v[i], 0.0f);
  }
}
