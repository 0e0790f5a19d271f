// Keys, values and queries as fragments of the m16n8k16 product, out of a page of the pool in shared memory.
//
// The includer defines HEAD_DIM, PAD (HEAD_DIM rounded up to 64), TILES_M (16-row tiles of dimensions of a warp) and TILES_N
// (8-column tiles of heads). Tokens are the rows of keys, dimensions those of values; four warps share both.
//
// bf16: the values of the pool are the operands. fp8: every number is an f16, so both products are of f16 with f32 sums.
// ldmatrix moves pairs of bytes, so a thread gets four dimensions of a key where it gets two of bf16, and they become two
// columns of one fragment each: the order of dimensions within a step of 16 is another one, the same for keys and queries.
// Of values it gets two dimensions of two tokens, and they become two rows: rows r and r + 8 are dimensions 2 r and 2 r + 1.
// A query is scaled by a power of two that brings its largest number to at least 2^13 and below 2^14; f16 keeps bf16's
// fraction exact down to 2^-17 of that scale, so what it loses is below 2^-31 of the largest.
#pragma once
#include "kv_pool.cuh"
#include "tensor_tile.cuh"

constexpr int STEPS = (HEAD_DIM + 15) / 16;
constexpr int SUBTILE_BYTES = KV_SUBTILE_BYTES;
constexpr int SIDE_BYTES = KV_PART_BYTES(HEAD_DIM);
constexpr int ROW_BYTES = SUBTILE_BYTES / 64;
// Steps of 16 dimensions, or of 16 tokens, that one load of four matrices is good for.
constexpr int LOAD_STEPS = 1 + KV_FP8;
constexpr int LOADS = (STEPS + LOAD_STEPS - 1) / LOAD_STEPS;
// Dimension of a thread's first value in a fragment, per pair of lanes, and from the first pair to the second.
constexpr int QUERY_LANE_DIMS = KV_FP8 ? 4 : 2;
constexpr int QUERY_PAIR_DIMS = KV_FP8 ? 2 : 8;

// Byte offsets of a thread in a page.
struct PageLane {
  u32 key, value[TILES_M];

  __device__ __forceinline__ PageLane(u32 warp, u32 lane) {
    const u32 r = lane % 8, matrix = lane / 8;
#if KV_FP8
    key = (warp * 16 + r + matrix % 2 * 8) * ROW_BYTES + ((matrix / 2 ^ r / 2) << 4);
#pragma unroll
    for (int m = 0; m < TILES_M; m++) {
      const u32 chunk = warp * TILES_M + m;
      value[m] = SIDE_BYTES + chunk / 4 * SUBTILE_BYTES + (r + matrix * 8) * ROW_BYTES + ((chunk % 4 ^ r / 2) << 4);
    }
#else
    key = (warp * 16 + r + matrix % 2 * 8) * ROW_BYTES + ((matrix / 2 ^ r) << 4);
#pragma unroll
    for (int m = 0; m < TILES_M; m++) {
      const u32 chunk = warp * (PAD / 32) + m * 2 + matrix % 2;
      value[m] = SIDE_BYTES + chunk / 8 * SUBTILE_BYTES + (r + matrix / 2 * 8) * ROW_BYTES + ((chunk % 8 ^ r) << 4);
    }
#endif
  }
};

// Dimension of a warp's row `row` (+ 8 where `second`) of tile `m`.
__device__ __forceinline__ int value_dim(int warp, int m, int row, int second) {
  return warp * (PAD / 4) + m * 16 + (KV_FP8 ? row * 2 + second : second * 8 + row);
}

#if KV_FP8
// Two numbers of e4m3 as two of f16.
__device__ __forceinline__ u32 half_pair(u32 two) {
  u32 pair;
  asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %1;\ncvt.rn.f16x2.e4m3x2 %0, low;\n}" : "=r"(pair) : "r"(two));
  return pair;
}
__device__ __forceinline__ u32 half_pair_high(u32 four) {
  u32 pair;
  asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %1;\ncvt.rn.f16x2.e4m3x2 %0, high;\n}" : "=r"(pair) : "r"(four));
  return pair;
}
// Two values rounded to f16, to nearest even, `low` in the low half.
__device__ __forceinline__ u32 weight_pair(float low, float high) {
  u32 pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
// c += a b.
__device__ __forceinline__ void multiply_kv(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#else
__device__ __forceinline__ u32 weight_pair(float low, float high) { return bf16_pair(low, high); }
__device__ __forceinline__ void multiply_kv(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) { multiply(c, a, b); }
#endif

// The warp's 16 tokens of steps LOAD_STEPS * i on.
__device__ __forceinline__ void load_key_steps(u32 (&a)[LOAD_STEPS][4], u32 page, const PageLane& at, int i) {
#if KV_FP8
  u32 raw[4];
  load_matrices(raw, page + (at.key ^ i % 2 * 32) + i / 2 * SUBTILE_BYTES);
#pragma unroll
  for (int step = 0; step < 2; step++) {
    a[step][0] = half_pair(raw[2 * step]);
    a[step][1] = half_pair(raw[2 * step + 1]);
    a[step][2] = half_pair_high(raw[2 * step]);
    a[step][3] = half_pair_high(raw[2 * step + 1]);
  }
#else
  load_matrices(a[0], page + (at.key ^ i % 4 * 32) + i / 4 * SUBTILE_BYTES);
#endif
}

// Dimensions of tile m of the warp, of tokens 16 LOAD_STEPS i on. Of those, what is from `visible` on becomes zero unless all
// are WHOLE: it may be anything, NaN too, and 0 * NaN is NaN.
template <bool WHOLE>
__device__ __forceinline__ void load_value_steps(
    u32 (&a)[LOAD_STEPS][4], u32 page, const PageLane& at, int m, int i, u32 visible, u32 pair) {
  u32 raw[4];
  load_transposed(raw, page + at.value[m] + i * 2048);
#pragma unroll
  for (int j = 0; j < 4; j++) {
    if (!WHOLE) {
      const u32 token = KV_FP8 ? i * 32 + j * 8 + pair * 2 : i * 16 + j / 2 * 8 + pair * 2;
      raw[j] &= token + 1 < visible ? ~0u : token < visible ? 0xffffu : 0u;
    }
#if KV_FP8
    const u32 sorted = __byte_perm(raw[j], 0, 0x3120);
    a[j / 2][j % 2 * 2] = half_pair(sorted);
    a[j / 2][j % 2 * 2 + 1] = half_pair_high(sorted);
#else
    a[0][j] = raw[j];
#endif
  }
}

// Brings the queries of one head, pairs of bf16 spread over four neighbouring lanes, into the products' type. Returns what
// scores are to be multiplied by.
__device__ __forceinline__ float take_queries(u32 (&query)[STEPS][TILES_N][2], int n) {
#if KV_FP8
  u32 most = 0;
#pragma unroll
  for (int step = 0; step < STEPS; step++) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const u32 size = query[step][n][i] & 0x7fff7fffu;
      most = max(most, max(size >> 16, size & 0xffffu));
    }
  }
  most = max(most, __shfl_xor_sync(~0u, most, 1));
  most = max(most, __shfl_xor_sync(~0u, most, 2));
  // Of a power of two and its inverse, the exponents; both stay normal numbers.
  const u32 up = min(267 - (most >> 7), 253u);
  const float by = __uint_as_float(up << 23), back = __uint_as_float((254 - up) << 23);
#pragma unroll
  for (int step = 0; step < STEPS; step++) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const u32 two = query[step][n][i];
      query[step][n][i] = weight_pair(__fmul_rn(bf16_low(two), by), __fmul_rn(bf16_high(two), by));
    }
  }
  return back;
#else
  return 1.f;
#endif
}
