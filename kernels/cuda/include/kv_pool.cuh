// Addresses and elements of the paged KV pool.
//
// A block is 64 tokens of all layers: [layer][kv head][K then V][subtile of 64 dimensions][64 tokens][64 dimensions], the
// head's dimensions padded with zeros to a multiple of 64. Elements are bf16 or, where KV_FP8 is 1, e4m3. In row t of a
// subtile of bf16 the 16-byte chunk c lies at chunk c ^ (t % 8), of e4m3 at c ^ (t / 2 % 4): the 128-byte and the 64-byte
// swizzle, so that eight rows are read without bank conflicts.
#pragma once
#include "elements.cuh"

#ifndef KV_FP8
#define KV_FP8 0
#endif

#define KV_BLOCK_TOKENS 64
#define KV_ELEMENT_BYTES (2 - KV_FP8)
#define KV_SUBTILE_BYTES (4096 * KV_ELEMENT_BYTES)
#define KV_PADDED_DIM(dim) (((dim) + 63) / 64 * 64)
// Bytes of the keys, or of the values, of one block, layer and head.
#define KV_PART_BYTES(dim) (KV_PADDED_DIM(dim) / 64 * KV_SUBTILE_BYTES)

#define LARGEST_E4M3 448.0f

// Bits of a number of 8 bits: sign, 4 bits of exponent with bias 7, 3 of fraction; all ones behind the sign are NaN.
struct e4m3 {
  u8 bits;
};

#if KV_FP8
typedef e4m3 kv_element;
#else
typedef bf16 kv_element;
#endif

// Byte of dimension `dim` of token `slot` in a part of bf16, whatever the pool has.
__device__ __forceinline__ u32 bf16_offset(u32 slot, u32 dim) {
  return (dim / 64) * 8192 + slot * 128 + (((dim / 8 % 8) ^ (slot % 8)) * 16) + dim % 8 * 2;
}

// Byte of dimension `dim` of token `slot` within the keys or values of a block, layer and head.
__device__ __forceinline__ u32 kv_offset(u32 slot, u32 dim) {
#if KV_FP8
  return (dim / 64) * KV_SUBTILE_BYTES + slot * 64 + (((dim / 16 % 4) ^ (slot / 2 % 4)) * 16) + dim % 16;
#else
  return bf16_offset(slot, dim);
#endif
}

// The nearest number, ties to even; beyond the largest, the largest. NaN stays NaN.
__device__ __forceinline__ u32 e4m3_bits(float x) {
  const u32 sign = __float_as_uint(x) >> 24 & 0x80;
  if (x != x) return 0x7f;
  const float size = fminf(fabsf(x), LARGEST_E4M3);
  // Below 2^-6 the steps are 2^-9, which is the last place of 2^14.
  if (size < 0.015625f) return sign | (__float_as_uint(__fadd_rn(size, 16384.0f)) & 0xff);
  const u32 bits = __float_as_uint(size);
  return sign | ((bits + 0x7ffff + (bits >> 20 & 1)) - 0x3c000000u) >> 20;
}

__device__ __forceinline__ float e4m3_value(u32 bits) {
  const u32 sign = (bits & 0x80) << 24, size = bits & 0x7f;
  if (size == 0x7f) return NOT_A_NUMBER;
  // The exponents' biases differ by 120.
  return __uint_as_float(sign | __float_as_uint(__uint_as_float(size << 20) * 1.3292279957849159e36f));
}

__device__ __forceinline__ float kv_value(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
__device__ __forceinline__ float kv_value(e4m3 x) { return e4m3_value(x.bits); }

// N consecutive elements; eight of e4m3 lie at a multiple of 8 bytes.
template <int N> __device__ __forceinline__ void load(const e4m3* from, float (&v)[N]) {
  if constexpr (N % 8 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 8) {
      const uint2 eight = *reinterpret_cast<const uint2*>(from + i);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        v[i + j] = e4m3_value(eight.x >> 8 * j & 0xff);
        v[i + 4 + j] = e4m3_value(eight.y >> 8 * j & 0xff);
      }
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; i++) v[i] = e4m3_value(from[i].bits);
  }
}

template <int N> __device__ __forceinline__ void store(e4m3* to, const float (&v)[N]) {
  if constexpr (N % 8 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 8) {
      uint2 eight = make_uint2(0, 0);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        eight.x |= e4m3_bits(v[i + j]) << 8 * j;
        eight.y |= e4m3_bits(v[i + 4 + j]) << 8 * j;
      }
      *reinterpret_cast<uint2*>(to + i) = eight;
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; i++) to[i].bits = (u8)e4m3_bits(v[i]);
  }
}
