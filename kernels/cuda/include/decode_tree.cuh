// The merge tree of decode attention: one thread's share of partials (o normalised, lse), and the spine of the tree.
//
// The includer defines TILES_M (16-row tiles of dimensions of a warp) and TILES_N (8-column tiles of heads).
#pragma once
#include "elements.cuh"

#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f
#define NO_LSE __int_as_float(0xff800000)

constexpr int PART_FLOATS = TILES_N * (TILES_M * 4 + 2);
// Tree levels kept in registers; the deeper ones, met once in 2^LOW pages, lie in local memory.
constexpr int LOW = PART_FLOATS <= 10 ? (__CUDA_ARCH__ >= 1000 ? 3 : 4) : TILES_N == 1 ? 2 : 1;
constexpr int DEEP = 22 - LOW;

// One thread's share of a partial: of heads 2 q, 2 q + 1 of each N tile (q = lane % 4), dimensions of lane / 4 (+ 8).
struct Values {
  float o[TILES_M][TILES_N][4];
};
struct Part {
  Values values;
  float lse[TILES_N][2];
};

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

// right <- merge(left, right).
__device__ __forceinline__ void merge(const Part& left, Part& right) {
#pragma unroll
  for (int n = 0; n < TILES_N; n++) {
    float to_left[2], to_right[2];
#pragma unroll
    for (int h = 0; h < 2; h++) right.lse[n][h] = merge_lse(left.lse[n][h], right.lse[n][h], to_left[h], to_right[h]);
#pragma unroll
    for (int m = 0; m < TILES_M; m++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        float& o = right.values.o[m][n][i];
        o = merge_o(left.values.o[m][n][i], o, to_left[i & 1], to_right[i & 1]);
      }
    }
  }
}

// The right spine of the tree while nodes arrive in order: a binary counter. `deep` is an array of its own, so that
// `low` is indexed by constants alone and stays in registers.
struct Spine {
  Part low[LOW];
  Part* deep;

  // Takes node `index` of its level, LEVEL at first.
  template <int LEVEL = 0>
  __device__ __forceinline__ void push(Part& node, u32 index) {
    if constexpr (LEVEL < LOW) {
      if (index & 1) {
        merge(low[LEVEL], node);
        push<LEVEL + 1>(node, index >> 1);
      } else {
        low[LEVEL] = node;
      }
    } else {
      int level = 0;
      for (; index & 1; index >>= 1) merge(deep[level++], node);
      deep[level] = node;
    }
  }

  // What `count` pushed nodes make together; missing nodes are empty. `some` tells whether `node` holds any yet.
  template <int LEVEL = 0>
  __device__ __forceinline__ void finish(Part& node, u32 count, bool some = false) {
    if constexpr (LEVEL < LOW) {
      if (count & 1) {
        if (some) merge(low[LEVEL], node);
        else node = low[LEVEL];
        some = true;
      }
      finish<LEVEL + 1>(node, count >> 1, some);
    } else {
      for (int level = 0; count != 0; count >>= 1, level++) {
        if ((count & 1) == 0) continue;
        if (some) merge(deep[level], node);
        else node = deep[level];
        some = true;
      }
    }
  }
};
