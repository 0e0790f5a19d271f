// attend_decode: paged attention of one query token a job, one launch from the pool to the merged result.
//
// s_i = q . k_i / sqrt(D), lse = ln sum exp(s_i), o = sum exp(s_i - lse) v_i, over the first `tokens` tokens of a job.
//
// Work: attend_decode_plan.cu cuts every job (a sequence, or a node of the merge tree) into aligned nodes of 2^k pages.
// An item is one node of one KV head and yields one partial. A CTA takes its first two items by its number, then by
// ticket. Nodes of a split job meet in the workspace, up to 16 at a time: each says beforehand that it will be there soon,
// and the CTA that says so last waits for the others' numbers and merges them in the same launch. It waits only for CTAs
// that run and wait for nothing but their own pages, so that no number of CTAs in place is needed. No fences: a number
// that is not there yet shows as ABSENT, and whoever reads it makes it so again.
// Warps: warp 4 copies whole page-heads (K and V adjacent, one bulk copy) into a ring; warps 0 to 3 take pages from it.
// Page: tokens are the M axis of K Q^T, dimensions that of V^T P^T, so a group of up to 8 heads costs one N tile; warp
// w scores tokens 16 w to 16 w + 15, all warps exchange scores once through shared memory, and each owns a quarter of
// the dimensions. Two pages are computed side by side where registers allow: one warp a scheduler is bound by latency.
// ALONE (narrow heads): each warp takes pages of a quarter of the item, with a ring of its own, turns its weights around
// in registers, and the four shares are merged at the end; the same sums in the same order.
// Ring: a stage is given back by an arrival of every lane that read it. Its address is made of what was loaded, because an
// arrival overtakes loads from shared memory that are still queued; a fence orders the reads before the copy's writes.
// Bits: a leaf (64 tokens) is computed in one fixed order, then the tree over the page number; every node is kept as (o
// normalised, lse), so it does not matter which CTA, launch or machine computed it, nor what else ran.
//
// Compile time: HEAD_DIM (true D, even, at most 256), GROUP (query heads a KV head, 1 to 16), KV_FP8 (1: a pool of e4m3, read
// as decode_kv.cuh says). Needs bulk copies.
// Limit: bytes of KV over the bulk-copy read rate. Test: attend_decode_cuda_test.ts. Time: attend_decode_cuda_bench.ts.
//
// @arch sm_90a sm_100
// @define HEAD_DIM=128 GROUP=1
// @define HEAD_DIM=128 GROUP=4
// @define HEAD_DIM=64 GROUP=3
// @define HEAD_DIM=80 GROUP=9
// @define HEAD_DIM=256 GROUP=16
// @define HEAD_DIM=128 GROUP=4 KV_FP8=1
// @define HEAD_DIM=64 GROUP=3 KV_FP8=1
// @define HEAD_DIM=256 GROUP=16 KV_FP8=1

#include "bulk_copy.cuh"
#include "dependents.cuh"

constexpr int PAD = (HEAD_DIM + 63) / 64 * 64;
// One warp a page: for narrow heads a page is too little work to share it.
#if HEAD_DIM <= 64 && GROUP <= 8 && !KV_FP8 && !defined(TOGETHER)
constexpr bool ALONE = true;
#else
constexpr bool ALONE = false;
#endif
constexpr int TILES_M = ALONE ? 4 : PAD / 64;
constexpr int TILES_N = (GROUP + 7) / 8;
#include "decode_kv.cuh"
#include "decode_tree.cuh"

constexpr int PAGE_BYTES = 2 * SIDE_BYTES;

#ifndef CTAS
#define CTAS (KV_FP8 && SIDE_BYTES <= 8192 ? 2 : 1)
#endif
#ifndef STAGES
#define STAGES (PAD == 64 && !KV_FP8 ? 12 : SIDE_BYTES <= 4096 ? 8 : SIDE_BYTES <= 16384 ? 6 : SIDE_BYTES == 24576 ? 4 : 3)
#endif
// Pages computed side by side: two, where registers and the ring have room.
constexpr int SIDE = ALONE ? 1 : STAGES >= 4 && PAD / 64 * ((GROUP + 7) / 8) <= 4 ? 2 : 1;
constexpr int WARPS = 4;
constexpr int THREADS = (WARPS + 1) * 32;
constexpr int DESCRIPTORS = 4;
// Scores of pages, twice; or a partial of each warp and the weights of merges.
constexpr int PARTIAL_BYTES = (GROUP * PAD + 8) * 4;
constexpr int SCORES_BYTES = ALONE ? (4 * PARTIAL_BYTES + 2048) / 2 : SIDE * TILES_N * 8 * 64 * 4;

// Shared memory, from a base aligned to 1024 bytes.
constexpr int AT_SCORES = STAGES * PAGE_BYTES;
constexpr int AT_DESCRIPTORS = AT_SCORES + 2 * SCORES_BYTES;
constexpr int AT_BARRIERS = AT_DESCRIPTORS + DESCRIPTORS * 32;
constexpr int AT_LAST = AT_BARRIERS + 8 * 2 * (STAGES + DESCRIPTORS);

// A plan entry, i32: first index into the block table, pages, tokens, query row, output row, nodes of the job, slot of
// this node, slot of the job's first node, then the first four block ids.
constexpr int ENTRY = 12;
// A slot of the workspace, f32: o of every head in the order the threads hold it, then lse of the heads. What is ABSENT has
// not been written yet: no arithmetic gives these bits, so a reader sees of every number by itself whether it is there.
constexpr int OWN = 2 * TILES_M;
constexpr int WARP_DIMS = ALONE ? PAD : PAD / 4;
constexpr int SLOT_LSE = GROUP * PAD;
constexpr int SLOT = SLOT_LSE + 32;
constexpr u32 ABSENT = 0xffffffffu;

// Nodes of a split job that are merged at a time, and how the threads share them: PIECE numbers of every node each, AT_ONCE
// times before they look at the next.
constexpr int MERGE_LEVEL = 4;
constexpr int MERGED = 1 << MERGE_LEVEL;
constexpr int PIECE = GROUP * PAD >= 512 ? 4 : 2;
constexpr int PIECES = GROUP * PAD / PIECE;
constexpr int ROUNDS = (PIECES + 127) / 128;
#ifndef AT_MOST
#define AT_MOST 1
#endif
constexpr int AT_ONCE = ROUNDS > 1 ? AT_MOST : 1;

// Barriers of the ring (a page has landed, a stage is free) and of the descriptors (told, read).
struct Barriers {
  u32 full, free, told, read;

  __device__ __forceinline__ Barriers(u32 shared)
      : full(shared + AT_BARRIERS),
        free(full + 8 * STAGES),
        told(free + 8 * STAGES),
        read(told + 8 * DESCRIPTORS) {}
};

// A place in the ring and the parity to wait for there. Warps that work alone have rings of their own.
constexpr int RING = ALONE ? STAGES / 4 : STAGES;
struct Ring {
  u32 stage, phase;

  __device__ __forceinline__ u32 after() const { return (stage + 1) % RING == 0 ? stage + 1 - RING : stage + 1; }
  __device__ __forceinline__ void step() {
    const u32 next = after();
    phase ^= next < stage + 1;
    stage = next;
  }
};

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


// Where a node stands among the nodes of its job: `parts` of one level, in slots from `first` on, merged MERGED at a time into
// the nodes of the next level, which lie behind them.
struct Place {
  int first, parts, node;

  __device__ __forceinline__ int group() const { return node & ~(MERGED - 1); }
  __device__ __forceinline__ int count() const { return min(parts - group(), MERGED); }
  __device__ __forceinline__ void up() {
    first += parts;
    parts = (parts + MERGED - 1) >> MERGE_LEVEL;
    node >>= MERGE_LEVEL;
  }
  // A node without neighbours is its own parent.
  __device__ __forceinline__ void settle() {
    while (parts > 1 && count() == 1) up();
  }
};

struct Item {
  int pages, tokens, query_row, out_row, parts, slot, first_slot, head;

  __device__ __forceinline__ Place place() const {
    Place place{first_slot, parts, slot - first_slot};
    place.settle();
    return place;
  }
};

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

// Numbers of a slot: relaxed accesses, which need no order among them.
template <int COUNT>
__device__ __forceinline__ void put_slot(float* to, const float (&x)[COUNT]) {
  u32 bits[COUNT];
#pragma unroll
  for (int i = 0; i < COUNT; i++) {
    bits[i] = __float_as_uint(x[i]);
    if (bits[i] == ABSENT) bits[i] = 0x7fffffffu;
  }
  if constexpr (COUNT % 4 == 0) {
#pragma unroll
    for (int i = 0; i < COUNT; i += 4) {
      asm volatile("st.relaxed.gpu.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to + i), "r"(bits[i]), "r"(bits[i + 1]),
                   "r"(bits[i + 2]), "r"(bits[i + 3]) : "memory");
    }
  } else if constexpr (COUNT % 2 == 0) {
#pragma unroll
    for (int i = 0; i < COUNT; i += 2) {
      asm volatile("st.relaxed.gpu.global.v2.b32 [%0], {%1, %2};" ::"l"(to + i), "r"(bits[i]), "r"(bits[i + 1]) : "memory");
    }
  } else {
#pragma unroll
    for (int i = 0; i < COUNT; i++) asm volatile("st.relaxed.gpu.global.b32 [%0], %1;" ::"l"(to + i), "r"(bits[i]) : "memory");
  }
}
__device__ __forceinline__ void get_slot(float (&x)[2], const float* from) {
  asm volatile("ld.relaxed.gpu.global.v2.f32 {%0, %1}, [%2];" : "=f"(x[0]), "=f"(x[1]) : "l"(from) : "memory");
}
__device__ __forceinline__ void get_slot(float (&x)[4], const float* from) {
  asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(x[0]), "=f"(x[1]), "=f"(x[2]), "=f"(x[3]) : "l"(from) : "memory");
}
__device__ __forceinline__ void clear_slot(float (&)[2], float* to) {
  asm volatile("st.relaxed.gpu.global.v2.b32 [%0], {%1, %1};" ::"l"(to), "r"(ABSENT) : "memory");
}
__device__ __forceinline__ void clear_slot(float (&)[4], float* to) {
  asm volatile("st.relaxed.gpu.global.v4.b32 [%0], {%1, %1, %1, %1};" ::"l"(to), "r"(ABSENT) : "memory");
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

// How the warps share a node of so many pages: each takes a node of a quarter of the size, and they are fetched in turn.
struct Shares {
  int quarter, full, rest;  // pages of a share, whole shares, pages of the one behind them

  __device__ __forceinline__ Shares(int pages) {
    const int level = 32 - __clz(max(pages - 1, 0));
    quarter = 1 << max(level - 2, 0);
    full = pages / quarter;
    rest = pages % quarter;
  }
  __device__ __forceinline__ int of(int warp) const { return warp < full ? quarter : warp == full ? rest : 0; }
  // How many have a j-th page.
  __device__ __forceinline__ int width(int j) const { return full + (j < rest); }
};

__device__ __forceinline__ void store_part(const Part& part, float* slot, const Lane& at) {
#pragma unroll
  for (int n = 0; n < TILES_N; n++) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int member = n * 8 + at.pair * 2 + h;
      if (member >= GROUP) continue;
      float own[OWN];
#pragma unroll
      for (int i = 0; i < OWN; i++) own[i] = part.values.o[i / 2][n][i % 2 * 2 + h];
      put_slot(slot + member * PAD + at.warp * WARP_DIMS + at.row * OWN, own);
      if (at.warp == 0 && at.row == 0) {
        const float lse[1] = {part.lse[n][h]};
        put_slot(slot + SLOT_LSE + member, lse);
      }
    }
  }
}

// Results: bf16 [row][heads][D] for the output projection, and (o, lse) in f32; either may be absent.
struct Results {
  u16* out;
  float* o;
  float* lse;
  int heads;
};

__device__ __forceinline__ void store_result(const Part& part, const Results& to, int row, int head, const Lane& at) {
#pragma unroll
  for (int n = 0; n < TILES_N; n++) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int member = n * 8 + at.pair * 2 + h;
      if (member >= GROUP) continue;
      const u64 index = (u64)row * to.heads + head * GROUP + member;
      if (to.lse && at.warp == 0 && at.row == 0) to.lse[index] = part.lse[n][h];
#pragma unroll
      for (int m = 0; m < TILES_M; m++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
          const int dim = value_dim(at.warp, m, at.row, i);
          const float o = part.values.o[m][n][i * 2 + h];
          if (dim >= HEAD_DIM) continue;
          if (to.out) to.out[index * HEAD_DIM + dim] = (u16)bf16_pair(o, 0.f);
          if (to.o) to.o[index * HEAD_DIM + dim] = o;
        }
      }
    }
  }
}

// PIECE numbers of a slot, from `first` on, as a result.
__device__ __forceinline__ void store_piece(const float (&o)[PIECE], int first, const Results& to, int row, int kv_head) {
  const u64 index = (u64)row * to.heads + kv_head * GROUP + first / PAD;
#pragma unroll
  for (int j = 0; j < PIECE; j++) {
    const int within = (first + j) % PAD, own = within % OWN;
    const int dim = value_dim(within / WARP_DIMS, own / 2, within % WARP_DIMS / OWN, own % 2);
    if (dim >= HEAD_DIM) continue;
    if (to.out) to.out[index * HEAD_DIM + dim] = (u16)bf16_pair(o[j], 0.f);
    if (to.o) to.o[index * HEAD_DIM + dim] = o[j];
  }
}

// Weights of a group's merges in shared memory, [merge][8 TILES_N heads][left, right], level by level.
__device__ __forceinline__ constexpr int merges_below(int level) { return MERGED - (MERGED >> level); }

// Merges `count` neighbours. Lanes are nodes while the weights are found, so that their latency is paid once a level; the
// values then need multiply-adds alone. The result goes to `parent`, or where there is none, to `row`.
__device__ __forceinline__ void merge_slots(
    u32 weights, float* nodes, u64 stride, int count, float* parent, const Results& to, int row, int kv_head,
    const Lane& at) {
  const int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int round = 0; round < ROUNDS; round += AT_ONCE) {
    float value[MERGED][AT_ONCE][PIECE];
    const auto load = [&] {
#pragma unroll
      for (int i = 0; i < MERGED; i++) {
#pragma unroll
        for (int a = 0; a < AT_ONCE; a++) {
          const int piece = threadIdx.x + (round + a) * 128;
          // What is not there merges without changing a bit, the sign of a zero neither.
#pragma unroll
          for (int j = 0; j < PIECE; j++) value[i][a][j] = -0.f;
          if (i < count && piece < PIECES) get_slot(value[i][a], nodes + (u64)i * stride + piece * PIECE);
        }
      }
    };
    if (round > 0) load();
    if (round == 0) {
      const int node = lane % MERGED;
#pragma unroll 1
      for (int base = 0; base < GROUP; base += WARPS * 32 / MERGED) {
        const int head = base + at.warp * (32 / MERGED) + lane / MERGED;
        const bool real = node < count && head < GROUP;
        float* const place = nodes + (u64)node * stride + SLOT_LSE + head;
        float lse = NO_LSE;
        if (real) {
          do asm volatile("ld.relaxed.gpu.global.f32 %0, [%1];" : "=f"(lse) : "l"(place) : "memory");
          while (__float_as_uint(lse) == ABSENT);
          asm volatile("st.relaxed.gpu.global.b32 [%0], %1;" ::"l"(place), "r"(ABSENT) : "memory");
        }
        __syncwarp();
        // Whoever has told its lse has most likely told its values.
        if (GROUP <= 8) load();
        // As merge_lse; only sums wait for one another.
        float small[MERGE_LEVEL], sum[MERGE_LEVEL];
        bool first[MERGE_LEVEL];
#pragma unroll
        for (int level = 0; level < MERGE_LEVEL; level++) {
          const float other = __shfl_xor_sync(~0u, lse, 1 << level);
          const bool right = node >> level & 1;
          first[level] = right ? other >= lse : lse >= other;
          const bool own = right != first[level];
          const float high = own ? lse : other, low = own ? other : lse;
          small[level] = low == NO_LSE ? 0.f : exp2_of(__fmul_rn(__fsub_rn(low, high), LOG2E));
          sum[level] = __fadd_rn(1.f, small[level]);
          lse = __fmaf_rn(log2_of(sum[level]), LN2, high);
        }
#pragma unroll
        for (int level = 0; level < MERGE_LEVEL; level++) {
          const float big = inverse_of(sum[level]), less = __fmul_rn(small[level], big);
          if ((node & (2 << level) - 1) == 0 && head < GROUP) {
            const u32 put = weights + ((merges_below(level) + (node >> level + 1)) * 8 * TILES_N + head) * 8;
            put_float(put, first[level] ? big : less);
            put_float(put + 4, first[level] ? less : big);
          }
        }
        if (node == 0 && head < GROUP) {
          const float result[1] = {lse};
          if (parent) put_slot(parent + SLOT_LSE + head, result);
          else if (to.lse) to.lse[(u64)row * to.heads + kv_head * GROUP + head] = lse;
        }
      }
      if (GROUP > 8) load();
    }
    for (;;) {
      u32 most = 0;
#pragma unroll
      for (int i = 0; i < MERGED; i++) {
#pragma unroll
        for (int a = 0; a < AT_ONCE; a++) {
#pragma unroll
          for (int j = 0; j < PIECE; j++) most = max(most, __float_as_uint(value[i][a][j]));
        }
      }
      if (!__any_sync(~0u, most == ABSENT)) break;
      load();
    }
#pragma unroll
    for (int i = 0; i < MERGED; i++) {
#pragma unroll
      for (int a = 0; a < AT_ONCE; a++) {
        const int piece = threadIdx.x + (round + a) * 128;
        if (i < count && piece < PIECES) clear_slot(value[i][a], nodes + (u64)i * stride + piece * PIECE);
      }
    }
    if (round == 0) consumers_sync();
    // value[i] covers the subtree that ends with it.
#pragma unroll
    for (int level = 0; level < MERGE_LEVEL; level++) {
#pragma unroll
      for (int i = (2 << level) - 1; i < MERGED; i += 2 << level) {
#pragma unroll
        for (int a = 0; a < AT_ONCE; a++) {
          const int head = min((threadIdx.x + (round + a) * 128) * PIECE / PAD, GROUP - 1);
          float to_left, to_right;
          get_floats(to_left, to_right, weights + ((merges_below(level) + (i >> level + 1)) * 8 * TILES_N + head) * 8);
#pragma unroll
          for (int j = 0; j < PIECE; j++) {
            value[i][a][j] = merge_o(value[i - (1 << level)][a][j], value[i][a][j], to_left, to_right);
          }
        }
      }
    }
#pragma unroll
    for (int a = 0; a < AT_ONCE; a++) {
      const int first = (threadIdx.x + (round + a) * 128) * PIECE;
      if (first >= PIECES * PIECE) continue;
      const float(&o)[PIECE] = value[MERGED - 1][a];
      if (parent) {
        put_slot(parent + first, o);
        continue;
      }
      store_piece(o, first, to, row, kv_head);
    }
  }
}

// Merges the warps' shares of a node. The result goes to `slot`, or where there is none, to `row`.
__device__ __forceinline__ void merge_shares(
    const Part& part, u32 partials, int shares, float* slot, const Results& to, int row, int kv_head, const Lane& at) {
  if (at.warp < shares) {
    const u32 own = partials + at.warp * PARTIAL_BYTES;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int member = at.pair * 2 + h;
      if (member >= GROUP) continue;
      const u32 put = own + (member * PAD + at.row * OWN) * 4;
#pragma unroll
      for (int i = 0; i < OWN; i += 4) {
        asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(put + i * 4), "f"(part.values.o[i / 2][0][h]),
                     "f"(part.values.o[i / 2][0][2 + h]), "f"(part.values.o[i / 2 + 1][0][h]),
                     "f"(part.values.o[i / 2 + 1][0][2 + h]) : "memory");
      }
      if (at.row == 0) put_float(own + (GROUP * PAD + member) * 4, part.lse[0][h]);
    }
  }
  consumers_sync();
#pragma unroll 1
  for (int round = 0; round < ROUNDS; round++) {
    const int first = (threadIdx.x + round * 128) * PIECE, head = first / PAD;
    if (first >= GROUP * PAD) continue;
    float value[4][PIECE], lse[4];
#pragma unroll
    for (int w = 0; w < 4; w++) {
      lse[w] = NO_LSE;
#pragma unroll
      for (int j = 0; j < PIECE; j++) value[w][j] = -0.f;
      if (w < shares) {
        const u32 from = partials + w * PARTIAL_BYTES;
        asm volatile("ld.shared.f32 %0, [%1];" : "=f"(lse[w]) : "r"(from + (GROUP * PAD + head) * 4) : "memory");
#pragma unroll
        for (int j = 0; j < PIECE; j += 2) get_floats(value[w][j], value[w][j + 1], from + (first + j) * 4);
      }
    }
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
#pragma unroll
      for (int w = 2 * step - 1; w < 4; w += 2 * step) {
        float to_left, to_right;
        lse[w] = merge_lse(lse[w - step], lse[w], to_left, to_right);
#pragma unroll
        for (int j = 0; j < PIECE; j++) value[w][j] = merge_o(value[w - step][j], value[w][j], to_left, to_right);
      }
    }
    if (slot) put_slot(slot + first, value[3]);
    else store_piece(value[3], first, to, row, kv_head);
    if (first % PAD == 0) {
      const float result[1] = {lse[3]};
      if (slot) put_slot(slot + SLOT_LSE + head, result);
      else if (to.lse) to.lse[(u64)row * to.heads + kv_head * GROUP + head] = lse[3];
    }
  }
}

// Where this thread says that a node will be there soon: one thread a CTA and group, the others nowhere.
constexpr u32 NOWHERE = ~0u;
__device__ __forceinline__ u32 counter_of(const Place& place, int kv_heads, int head) {
  return threadIdx.x == 0 && place.parts > 1 ? (place.first + place.group()) * kv_heads + head : NOWHERE;
}
// If `now`, says so; `before` becomes how many of the group said so before. Nobody waits for it here, which takes that the
// register is written in no other way.
__device__ __forceinline__ void announce(u32& before, u32* arrivals, u32 counter, bool now) {
  asm volatile(
      "{\n.reg .pred now;\nsetp.ne.u32 now, %2, 0;\n@now atom.relaxed.gpu.global.add.u32 %0, [%1], 1;\n}"
      : "+r"(before) : "l"(arrivals + counter), "r"((u32)(now && counter != NOWHERE)) : "memory");
}

__device__ __forceinline__ void consume(
    u32 shared, const u16* queries, float scale, u32* arrivals, float* slots, int kv_heads, const Results& to,
    u32 zero) {
  const Lane at(threadIdx.x);
  const Barriers barriers(shared);
  const u32 full = barriers.full, free = barriers.free, told = barriers.told, read = barriers.read;
  u32 turn = 0;
  Ring ring{ALONE ? at.warp * RING : 0, 0};
  Part deep[DEEP];
  // The successor may prepare itself from here on: what ran before this launch has ended.
  await_predecessors();
  release_dependents();
  for (u32 number = 0;; number++) {
    const u32 descriptor = number % DESCRIPTORS, round = number / DESCRIPTORS & 1;
    barrier_wait(told + 8 * descriptor, round);
    const u32 from = shared + AT_DESCRIPTORS + descriptor * 32;
    const int4 what = get_words(from), where = get_words(from + 16);
    const Item item{what.x, what.y, what.z, what.w, where.x, where.y, where.z, where.w};
    barrier_arrive(read + 8 * descriptor + ((what.x | where.x) & zero));
    if (item.pages < 0) break;

    u32 query[STEPS][TILES_N][2];
    float scales[TILES_N];
#pragma unroll
    for (int n = 0; n < TILES_N; n++) {
      const int member = n * 8 + at.row;
      const u16* row = queries + ((u64)item.query_row * to.heads + item.head * GROUP + member) * HEAD_DIM;
#pragma unroll
      for (int step = 0; step < STEPS; step++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
          const int dim = step * 16 + i * QUERY_PAIR_DIMS + at.pair * QUERY_LANE_DIMS;
          query[step][n][i] = member < GROUP && dim < HEAD_DIM ? __ldcg((const u32*)(row + dim)) : 0u;
        }
      }
    }
#pragma unroll
    for (int n = 0; n < TILES_N; n++) scales[n] = KV_FP8 ? __fmul_rn(scale, take_queries(query, n)) : scale;

    Part part;
    Spine spine;
    spine.deep = deep;
    u32 before = 0;
    const u32 counter = counter_of(item.place(), kv_heads, item.head);
    int page = 0;
    const Shares shares(item.pages);
    if constexpr (ALONE) {
      const int mine = shares.of(at.warp);
      for (int j = 0; j < mine; j++) {
        const u32 stage = ring.stage;
        barrier_wait(full + 8 * stage, ring.phase);
        ring.step();
        announce(before, arrivals, counter, j + 1 == mine);
        const u32 from = shared + stage * PAGE_BYTES, visible = item.tokens - (at.warp * shares.quarter + j) * 64;
        Part one;
        if (visible >= 64) attend_alone<true>(one, from, free + 8 * stage, query, 64, scales[0], zero, at);
        else attend_alone<false>(one, from, free + 8 * stage, query, visible, scales[0], zero, at);
        spine.push(one, j);
      }
      spine.finish(part, mine);
      page = item.pages;
    }
    for (; SIDE == 2 && page + 1 < item.pages; page += 2) {
      const u32 visible = item.tokens - (page + 1) * 64, scores = shared + AT_SCORES + turn * SCORES_BYTES;
      const u32 pages[2] = {shared + ring.stage * PAGE_BYTES, shared + ring.after() * PAGE_BYTES};
      const u32 frees[2] = {free + 8 * ring.stage, free + 8 * ring.after()};
      Part both[2];
      barrier_wait(full + 8 * ring.stage, ring.phase);
      ring.step();
      barrier_wait(full + 8 * ring.stage, ring.phase);
      ring.step();
      announce(before, arrivals, counter, page + 2 == item.pages);
      if (visible >= 64) attend_pages<2, true>(both, pages, frees, scores, query, 64, scales, zero, at);
      else attend_pages<2, false>(both, pages, frees, scores, query, visible, scales, zero, at);
      merge(both[0], both[1]);
      spine.push<1>(both[1], page / 2);
      turn ^= 1;
    }
    for (; page < item.pages; page++) {
      const u32 pages[1] = {shared + ring.stage * PAGE_BYTES}, frees[1] = {free + 8 * ring.stage};
      Part one[1];
      barrier_wait(full + 8 * ring.stage, ring.phase);
      ring.step();
      announce(before, arrivals, counter, page + 1 == item.pages);
      const u32 visible = item.tokens - page * 64, scores = shared + AT_SCORES + turn * SCORES_BYTES;
      if (SIDE == 1 && visible >= 64) attend_pages<1, true>(one, pages, frees, scores, query, 64, scales, zero, at);
      else attend_pages<1, false>(one, pages, frees, scores, query, visible, scales, zero, at);
      spine.push(one[0], page);
      turn ^= 1;
    }
    if constexpr (!ALONE) spine.finish(part, item.pages);
    if (item.pages == 0) {
#pragma unroll
      for (int n = 0; n < TILES_N; n++) {
        part.lse[n][0] = part.lse[n][1] = NO_LSE;
#pragma unroll
        for (int m = 0; m < TILES_M; m++) {
#pragma unroll
          for (int i = 0; i < 4; i++) part.values.o[m][n][i] = 0.f;
        }
      }
    }

    if (item.parts == 1) {
      if (ALONE && item.pages > 1) {
        const int count = (item.pages + shares.quarter - 1) / shares.quarter;
        merge_shares(part, shared + AT_SCORES, count, nullptr, to, item.out_row, item.head, at);
        // Before the next node's are written.
        consumers_sync();
      } else if (!ALONE || at.warp == 0) {
        store_result(part, to, item.out_row, item.head, at);
      }
      continue;
    }
    Place place = item.place();
    const u64 stride = (u64)kv_heads * SLOT;
    float* const own = slots + (u64)item.head * SLOT;
    float* const slot = own + (u64)(place.first + place.node) * stride;
    if (ALONE && item.pages > 1) {
      const int count = (item.pages + shares.quarter - 1) / shares.quarter;
      merge_shares(part, shared + AT_SCORES, count, slot, to, item.out_row, item.head, at);
    } else if (!ALONE || at.warp == 0) {
      store_part(part, slot, at);
    }
    while (place.parts > 1) {
      const int count = place.count(), group = place.first + place.group();
      if (threadIdx.x == 0) {
        const u32 last = before == (u32)count - 1;
        if (last) arrivals[(u64)group * kv_heads + item.head] = 0;
        put_word(shared + AT_LAST, last);
      }
      consumers_sync();
      u32 last;
      asm volatile("ld.shared.u32 %0, [%1];" : "=r"(last) : "r"(shared + AT_LAST) : "memory");
      if (!last) break;
      place.up();
      place.settle();
      announce(before, arrivals, counter_of(place, kv_heads, item.head), true);
      float* const parent = place.parts > 1 ? own + (u64)(place.first + place.node) * stride : nullptr;
      // The scores last used, so that the next page, which uses the others, may begin while a warp still reads here.
      const u32 weights = shared + AT_SCORES + (ALONE ? 4 * PARTIAL_BYTES : (turn ^ 1) * SCORES_BYTES);
      merge_slots(weights, own + (u64)group * stride, stride, count, parent, to, item.out_row, item.head, at);
    }
  }
}

__device__ __forceinline__ void produce(
    u32 shared, const u8* pool, u64 block_bytes, const int* table, int fields, int items, const int* entries, u32* tickets,
    int kv_heads, int early) {
  const u32 lane = threadIdx.x % 32;
  const Barriers barriers(shared);
  const u32 full = barriers.full, free = barriers.free, told = barriers.told, read = barriers.read;
  const int first = blockIdx.x, grid = gridDim.x;
  u32 number = 0;
  // Alone, lane w has the place of warp w.
  Ring ring{ALONE ? lane % 4 * RING : 0, 1};
  bool waited = !early;
  const bool tickets_drawn = items > 2 * grid;
  for (int item = first, next = first + grid; item < items;) {
    const int upcoming = next < items && lane < ENTRY ? entries[next / kv_heads * ENTRY + lane] : 0;
    const int head = item % kv_heads;
    const int start = __shfl_sync(~0u, fields, 0), pages = __shfl_sync(~0u, fields, 1);
    const int parts = __shfl_sync(~0u, fields, 5);
    const int slot = __shfl_sync(~0u, fields, 6), first_slot = __shfl_sync(~0u, fields, 7);
    const Shares shares(pages);
    // Block ids of the next 32 pages to be fetched and of those behind them: of 8 of each warp, or in order.
    const auto block_ids = [&](int window) {
      const int within = window * 8 + (int)lane % 8;
      const int page = ALONE ? (int)lane / 8 * shares.quarter + within : window * 8 + (int)lane;
      return (ALONE ? within < shares.of(lane / 8) : page < pages) ? table[start + page] : 0;
    };
    constexpr int WINDOW = ALONE ? 8 : 32;
    const int ids = block_ids(0), more_ids = block_ids(WINDOW / 8);
    u32 ticket = 0;
    if (waited && tickets_drawn && lane == 0) ticket = atomicAdd(tickets, 1);

    // Before the predecessor has ended, only pages that it cannot have written: all but the last of the sequence.
    const int fresh = slot - first_slot == parts - 1 ? pages - 1 : pages;
    int warp = 0, turn = 0;
    const auto fetch = [&](int block, int page) {
      if (!waited && page == fresh) {
        await_predecessors();
        waited = true;
        if (tickets_drawn && lane == 0) ticket = atomicAdd(tickets, 1);
      }
      u32 stage = ring.stage, phase = ring.phase;
      if (ALONE) {
        stage = __shfl_sync(~0u, ring.stage, warp);
        phase = __shfl_sync(~0u, ring.phase, warp);
      }
      const u32 landed = full + 8 * stage;
      barrier_wait(free + 8 * stage, phase);
      if (lane == 0) {
        const u8* const from = pool + (u64)block * block_bytes + (u64)head * PAGE_BYTES;
        barrier_expect(landed, PAGE_BYTES);
        bulk_copy_once(shared + stage * PAGE_BYTES, from, PAGE_BYTES, landed);
      }
      __syncwarp();
      if (!ALONE || lane == warp) ring.step();
      if (ALONE && ++warp == shares.width(turn)) {
        warp = 0;
        turn++;
      }
    };
    const auto page_of = [&](int count) { return ALONE ? warp * shares.quarter + turn : count; };

    // The first pages are in the plan's entry, so that nothing waits for the table. The item is told behind its first page.
    if (pages > 0) fetch(__shfl_sync(~0u, fields, 8), 0);
    const u32 descriptor = number % DESCRIPTORS;
    barrier_wait(read + 8 * descriptor, (number / DESCRIPTORS & 1) ^ 1);
    // Descriptor: pages, tokens, query row, output row, nodes, slot, first slot, head.
    int field = __shfl_sync(~0u, fields, lane + 1 & 31);
    if (lane == 7) field = head;
    if (lane < 8) {
      put_word(shared + AT_DESCRIPTORS + descriptor * 32 + lane * 4, field);
      barrier_arrive(told + 8 * descriptor);
    }
    const int known = min(pages, 4);
    for (int count = 1; count < known; count++) fetch(__shfl_sync(~0u, fields, 8 + count), page_of(count));
    int blocks = ids, following = more_ids;
    for (int count = known; count < pages; count++) {
      const int at = ALONE ? turn : count;
      if (at % WINDOW == 0 && at > 0 && warp == 0) {
        blocks = following;
        following = block_ids(at / 8 + WINDOW / 8);
      }
      const int lane_of = ALONE ? warp * 8 + turn % 8 : count % 32;
      fetch(__shfl_sync(~0u, blocks, lane_of), page_of(count));
    }
    if (!waited) {
      await_predecessors();
      waited = true;
      if (tickets_drawn && lane == 0) ticket = atomicAdd(tickets, 1);
    }
    number++;
    item = next;
    next = items;
    if (tickets_drawn) {
      // Every item draws one ticket, so the last ticket is known and its drawer leaves the counter as it was found.
      ticket = __shfl_sync(~0u, ticket, 0);
      if (lane == 0 && ticket == (u32)items - 1) *tickets = 0;
      next = 2 * grid + (int)ticket;
    }
    fields = upcoming;
  }
  const u32 descriptor = number % DESCRIPTORS;
  barrier_wait(read + 8 * descriptor, (number / DESCRIPTORS & 1) ^ 1);
  if (lane < 8) {
    put_word(shared + AT_DESCRIPTORS + descriptor * 32 + lane * 4, ~0u);
    barrier_arrive(told + 8 * descriptor);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, CTAS) attend_decode(
    const u8* pool, u64 block_bytes, const int* table, const u16* queries, const int* header, const int* entries,
    u32* tickets, u32* arrivals, float* slots, u16* out, float* o, float* lse, int kv_heads, float scale, int early) {
  extern __shared__ __align__(1024) u8 memory[];
  const u32 shared = shared_address(memory);
  int fields = 0, items = 0;
  if (threadIdx.x >= WARPS * 32) {
    if (!early) await_predecessors();
    // The plan reserves entries for one item a CTA, so this may be read before it is known whether there is such an item.
    if (threadIdx.x % 32 < ENTRY) fields = entries[blockIdx.x / kv_heads * ENTRY + threadIdx.x % 32];
    items = header[0];
  }
  if (threadIdx.x == 0) {
    const Barriers at(shared);
    for (int i = 0; i < STAGES; i++) {
      barrier_init(at.full + 8 * i, 1);
      barrier_init(at.free + 8 * i, ALONE ? 32 : WARPS * 32);
    }
    for (int i = 0; i < DESCRIPTORS; i++) {
      barrier_init(at.told + 8 * i, 8);
      barrier_init(at.read + 8 * i, WARPS * 32);
    }
    barriers_made();
  }
  __syncthreads();
  if (threadIdx.x < WARPS * 32) {
    // A zero that the compiler does not know.
    const u32 zero = (u32)early >> 1;
    consume(shared, queries, scale, arrivals, slots, kv_heads, Results{out, o, lse, kv_heads * GROUP}, zero);
  } else {
    produce(shared, pool, block_bytes, table, fields, items, entries, tickets, kv_heads, early);
  }
}
