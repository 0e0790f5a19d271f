// The partial of a page out of shared memory: by four warps that share it, or by one alone. Both give the same bits.
//
// The includer defines HEAD_DIM, GROUP, PAD, TILES_M, TILES_N, and ALONE, whether one warp does it; then TILES_M covers all of
// the head.
#pragma once
#include "bulk_copy.cuh"
#include "decode_kv.cuh"
#include "decode_tree.cuh"

__device__ __forceinline__ void put_float(u32 to, float value) {
  asm volatile("st.shared.f32 [%0], %1;" ::"r"(to), "f"(value) : "memory");
}
__device__ __forceinline__ void get_floats(float& first, float& second, u32 from) {
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(first), "=f"(second) : "r"(from) : "memory");
}
__device__ __forceinline__ void put_word(u32 to, u32 value) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(value) : "memory");
}
__device__ __forceinline__ int4 get_words(u32 from) {
  int4 words;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w) : "r"(from) : "memory");
  return words;
}
// Orders reads of shared memory before the bulk copies that a later arrival allows.
__device__ __forceinline__ void copies_follow() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Barrier of the four warps that compute.
__device__ __forceinline__ void consumers_sync() { asm volatile("bar.sync 1, 128;" ::: "memory"); }

// Byte offsets that depend on the thread alone.
struct Lane {
  u32 warp, row, pair;  // row = lane / 4, pair = lane % 4
  u32 put_even, put_odd, get;
  PageLane page;

  __device__ __forceinline__ Lane(u32 thread) : page(ALONE ? 0 : thread / 32, thread % 32) {
    const u32 lane = thread % 32;
    warp = thread / 32;
    row = lane / 4;
    pair = lane % 4;
    // Scores [head][64 tokens], token XORed by a number of the head, so that neither side has bank conflicts.
    const u32 token = warp * 16 + row;
    put_even = (pair * 2 * 64 + (token ^ pair * 8)) * 4;
    put_odd = ((pair * 2 + 1) * 64 + (token ^ (pair ^ 2) * 8)) * 4;
    get = (row * 64 + (pair * 2 ^ (row >> 1 ^ (row & 1) << 1) * 8)) * 4;
  }
};

// The partials of PAGES pages, computed side by side. `visible` tokens of the last page count, all of the others. A
// page is read to its end before its stage is given back.
template <int PAGES, bool WHOLE>
__device__ __forceinline__ void attend_pages(
    Part (&part)[PAGES], const u32 (&page)[PAGES], const u32 (&free)[PAGES], u32 scores,
    const u32 (&query)[STEPS][TILES_N][2], u32 visible, const float (&scale)[TILES_N], u32 zero, const Lane& at) {
  float s[PAGES][TILES_N][2][4];
#pragma unroll
  for (int u = 0; u < PAGES; u++) {
#pragma unroll
    for (int n = 0; n < TILES_N; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) s[u][n][0][i] = s[u][n][1][i] = 0.f;
    }
  }
#pragma unroll
  for (int load = 0; load < LOADS; load++) {
#pragma unroll
    for (int u = 0; u < PAGES; u++) {
      u32 a[LOAD_STEPS][4];
      load_key_steps(a, page[u], at.page, load);
#pragma unroll
      for (int i = 0; i < LOAD_STEPS; i++) {
        const int step = load * LOAD_STEPS + i;
        if (step >= STEPS) continue;
#pragma unroll
        for (int n = 0; n < TILES_N; n++) multiply_kv(s[u][n][step & 1], a[i], query[step][n]);
      }
    }
  }
#pragma unroll
  for (int u = 0; u < PAGES; u++) {
#pragma unroll
    for (int n = 0; n < TILES_N; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const u32 to = scores + (u * TILES_N + n) * 2048 + ((i & 1 ? at.put_odd : at.put_even) ^ i / 2 * 32);
        put_float(to, __fadd_rn(s[u][n][0][i], s[u][n][1][i]));
      }
    }
  }
  consumers_sync();

  u32 p[PAGES][TILES_N][4][2];
  float inverse[PAGES][TILES_N][2];
#pragma unroll
  for (int n = 0; n < TILES_N; n++) {
    float x[PAGES][16], most[PAGES], sum[PAGES];
#pragma unroll
    for (int u = 0; u < PAGES; u++) {
#pragma unroll
      for (int i = 0; i < 8; i++) {
        get_floats(x[u][2 * i], x[u][2 * i + 1], scores + (u * TILES_N + n) * 2048 + (at.get ^ i * 32));
        if (!WHOLE && u == PAGES - 1) {
          const u32 token = i * 8 + at.pair * 2;
          if (token >= visible) x[u][2 * i] = NO_LSE;
          if (token + 1 >= visible) x[u][2 * i + 1] = NO_LSE;
        }
      }
    }
#pragma unroll
    for (int u = 0; u < PAGES; u++) {
      float top[8];
#pragma unroll
      for (int i = 0; i < 8; i++) top[i] = fmaxf(x[u][i], x[u][i + 8]);
#pragma unroll
      for (int i = 0; i < 4; i++) top[i] = fmaxf(top[i], top[i + 4]);
      most[u] = fmaxf(fmaxf(top[0], top[2]), fmaxf(top[1], top[3]));
    }
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
#pragma unroll
      for (int u = 0; u < PAGES; u++) most[u] = fmaxf(most[u], __shfl_xor_sync(~0u, most[u], step));
    }
    const float by = __fmul_rn(scale[n], LOG2E);
#pragma unroll
    for (int u = 0; u < PAGES; u++) {
      const float shift = __fmul_rn(most[u], -by);
#pragma unroll
      for (int i = 0; i < 16; i++) x[u][i] = exp2_of(__fmaf_rn(x[u][i], by, shift));
    }
#pragma unroll
    for (int u = 0; u < PAGES; u++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        p[u][n][i][0] = weight_pair(x[u][4 * i], x[u][4 * i + 1]);
        p[u][n][i][1] = weight_pair(x[u][4 * i + 2], x[u][4 * i + 3]);
      }
#pragma unroll
      for (int i = 0; i < 8; i++) x[u][i] = __fadd_rn(x[u][i], x[u][i + 8]);
#pragma unroll
      for (int i = 0; i < 4; i++) x[u][i] = __fadd_rn(x[u][i], x[u][i + 4]);
      sum[u] = __fadd_rn(__fadd_rn(x[u][0], x[u][2]), __fadd_rn(x[u][1], x[u][3]));
    }
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
#pragma unroll
      for (int u = 0; u < PAGES; u++) sum[u] = __fadd_rn(sum[u], __shfl_xor_sync(~0u, sum[u], step));
    }
#pragma unroll
    for (int u = 0; u < PAGES; u++) {
      const float lse = __fmaf_rn(log2_of(sum[u]), LN2, __fmul_rn(most[u], scale[n])), over = inverse_of(sum[u]);
#pragma unroll
      for (int h = 0; h < 2; h++) {
        part[u].lse[n][h] = __shfl_sync(~0u, lse, at.pair * 8 + h * 4);
        inverse[u][n][h] = __shfl_sync(~0u, over, at.pair * 8 + h * 4);
      }
    }
  }

#pragma unroll
  for (int u = 0; u < PAGES; u++) {
#pragma unroll
    for (int m = 0; m < TILES_M; m++) {
#pragma unroll
      for (int n = 0; n < TILES_N; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) part[u].values.o[m][n][i] = 0.f;
      }
    }
  }
#pragma unroll
  for (int load = 0; load < 4 / LOAD_STEPS; load++) {
#pragma unroll
    for (int m = 0; m < TILES_M; m++) {
#pragma unroll
      for (int u = 0; u < PAGES; u++) {
        u32 a[LOAD_STEPS][4];
        if (WHOLE || u < PAGES - 1) load_value_steps<true>(a, page[u], at.page, m, load, 64, at.pair);
        else load_value_steps<false>(a, page[u], at.page, m, load, visible, at.pair);
#pragma unroll
        for (int i = 0; i < LOAD_STEPS; i++) {
#pragma unroll
          for (int n = 0; n < TILES_N; n++) {
            multiply_kv(part[u].values.o[m][n], a[i], p[u][n][load * LOAD_STEPS + i]);
          }
        }
      }
    }
  }
  // Without the address made of what was loaded, the stage is overwritten under loads that are queued behind a fence of a
  // neighbour, for example.
  copies_follow();
#pragma unroll
  for (int u = 0; u < PAGES; u++) {
    u32 loaded = 0;
#pragma unroll
    for (int m = 0; m < TILES_M; m++) loaded |= __float_as_uint(part[u].values.o[m][0][0]);
    barrier_arrive(free[u] + (loaded & zero));
  }
#pragma unroll
  for (int u = 0; u < PAGES; u++) {
#pragma unroll
    for (int m = 0; m < TILES_M; m++) {
#pragma unroll
      for (int n = 0; n < TILES_N; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          part[u].values.o[m][n][i] = __fmul_rn(part[u].values.o[m][n][i], inverse[u][n][i & 1]);
        }
      }
    }
  }
}

// The partial of one page by one warp; bit for bit that of attend_pages.
template <bool WHOLE>
__device__ __forceinline__ void attend_alone(
    Part& part, u32 page, u32 free, const u32 (&query)[STEPS][TILES_N][2], u32 visible, float scale, u32 zero,
    const Lane& at) {
  float s[4][2][4];
#pragma unroll
  for (int t = 0; t < 4; t++) {
#pragma unroll
    for (int i = 0; i < 4; i++) s[t][0][i] = s[t][1][i] = 0.f;
  }
#pragma unroll
  for (int step = 0; step < STEPS; step++) {
#pragma unroll
    for (int t = 0; t < 4; t++) {
      u32 a[4];
      load_matrices(a, page + (at.page.key ^ step * 32) + t * 16 * ROW_BYTES);
      multiply(s[t][step & 1], a, query[step][0]);
    }
  }
  // x[t][2 half + head]: token 16 t + 8 half + row.
  float x[4][4], most[2], sum[2], inverse[2];
#pragma unroll
  for (int t = 0; t < 4; t++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      x[t][i] = __fadd_rn(s[t][0][i], s[t][1][i]);
      if (!WHOLE && t * 16 + i / 2 * 8 + at.row >= visible) x[t][i] = NO_LSE;
    }
  }
#pragma unroll
  for (int h = 0; h < 2; h++) {
    most[h] = fmaxf(fmaxf(fmaxf(x[0][h], x[1][h]), fmaxf(x[2][h], x[3][h])),
                    fmaxf(fmaxf(x[0][2 + h], x[1][2 + h]), fmaxf(x[2][2 + h], x[3][2 + h])));
  }
#pragma unroll
  for (int step = 4; step < 32; step *= 2) {
#pragma unroll
    for (int h = 0; h < 2; h++) most[h] = fmaxf(most[h], __shfl_xor_sync(~0u, most[h], step));
  }
  const float by = __fmul_rn(scale, LOG2E);
  u32 p[4][2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const float shift = __fmul_rn(most[h], -by);
#pragma unroll
    for (int t = 0; t < 4; t++) {
#pragma unroll
      for (int half = 0; half < 2; half++) x[t][2 * half + h] = exp2_of(__fmaf_rn(x[t][2 * half + h], by, shift));
    }
  }
#pragma unroll
  for (int t = 0; t < 4; t++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;"
                   : "=r"(p[t][half]) : "r"(weight_pair(x[t][2 * half], x[t][2 * half + 1])));
    }
  }
#pragma unroll
  for (int h = 0; h < 2; h++) {
    float half[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      half[i] = __fadd_rn(__fadd_rn(x[0][2 * i + h], x[2][2 * i + h]), __fadd_rn(x[1][2 * i + h], x[3][2 * i + h]));
    }
    sum[h] = __fadd_rn(half[0], half[1]);
  }
#pragma unroll
  for (int step = 4; step < 32; step *= 2) {
#pragma unroll
    for (int h = 0; h < 2; h++) sum[h] = __fadd_rn(sum[h], __shfl_xor_sync(~0u, sum[h], step));
  }
#pragma unroll
  for (int h = 0; h < 2; h++) {
    part.lse[0][h] = __fmaf_rn(log2_of(sum[h]), LN2, __fmul_rn(most[h], scale));
    inverse[h] = inverse_of(sum[h]);
  }
#pragma unroll
  for (int m = 0; m < TILES_M; m++) {
#pragma unroll
    for (int i = 0; i < 4; i++) part.values.o[m][0][i] = 0.f;
  }
#pragma unroll
  for (int t = 0; t < 4; t++) {
#pragma unroll
    for (int m = 0; m < TILES_M; m++) {
      u32 a[LOAD_STEPS][4];
      load_value_steps<WHOLE>(a, page, at.page, m, t, visible, at.pair);
      multiply(part.values.o[m][0], a[0], p[t]);
    }
  }
  copies_follow();
  u32 loaded = 0;
#pragma unroll
  for (int m = 0; m < TILES_M; m++) loaded |= __float_as_uint(part.values.o[m][0][0]);
  barrier_arrive(free + (loaded & zero));
#pragma unroll
  for (int m = 0; m < TILES_M; m++) {
#pragma unroll
    for (int i = 0; i < 4; i++) part.values.o[m][0][i] = __fmul_rn(part.values.o[m][0][i], inverse[i & 1]);
  }
}
