// The merge tree of decode attention: one thread's share of partials (o normalised, lse), and the spine of the tree.
//
// The includer defines TILES_M (16-row tiles of dimensions of a warp) and TILES_N (8-column tiles of heads).
#pragma once
#include "merge_partials.cuh"

constexpr int PART_FLOATS = TILES_N * (TILES_M * 4 + 2);
// Tree levels kept in registers; the deeper ones, met once in 2^LOW pages, lie in local memory.
#if defined(KV_FP8) && KV_FP8
constexpr int LOW = PART_FLOATS <= 6 ? 3 : TILES_N == 1 ? 2 : 1;
#else
constexpr int LOW = PART_FLOATS <= 10 ? (__CUDA_ARCH__ >= 1000 ? 3 : 4) : TILES_N == 1 ? 2 : 1;
#endif
constexpr int DEEP = 22 - LOW;

// One thread's share of a partial: of heads 2 q, 2 q + 1 of each N tile (q = lane % 4), dimensions of lane / 4 (+ 8).
struct Values {
  float o[TILES_M][TILES_N][4];
};
struct Part {
  Values values;
  float lse[TILES_N][2];
};

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
