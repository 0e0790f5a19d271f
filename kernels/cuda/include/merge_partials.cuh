// Joins two partials (o normalised, lse in natural logarithm) of neighbouring ranges of tokens, always with the same roundings.
#pragma once
#include "elements.cuh"

#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f
#define NO_LSE __int_as_float(0xff800000)

__device__ __forceinline__ float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float log2_of(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float inverse_of(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// lse of merge(left, right), and the weights of both. lse = -infinity marks an empty partial, which changes no bit.
__device__ __forceinline__ float merge_lse(float left, float right, float& to_left, float& to_right) {
  const bool first = left >= right;
  const float high = first ? left : right, low = first ? right : left;
  const float e = low == NO_LSE ? 0.f : exp2_of(__fmul_rn(__fsub_rn(low, high), LOG2E));
  const float sum = __fadd_rn(1.f, e);
  const float big = inverse_of(sum), small = __fmul_rn(e, big);
  to_left = first ? big : small;
  to_right = first ? small : big;
  return __fmaf_rn(log2_of(sum), LN2, high);
}

__device__ __forceinline__ float merge_o(float left, float right, float to_left, float to_right) {
  return __fmaf_rn(left, to_left, __fmul_rn(right, to_right));
}
