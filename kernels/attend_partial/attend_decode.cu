// attend_decode: paged attention of one query token a job, one launch from the pool to the merged result.
//
// s_i = q . k_i / sqrt(D), lse = ln sum exp(s_i), o = sum exp(s_i - lse) v_i, over the first `tokens` tokens of a job.
//
// Work: attend_decode_plan.cu cuts every job (a sequence, or a node of the merge tree) into aligned nodes of 2^k pages.
// An item is one node of one KV head and yields one partial. A CTA takes its first two items by its number, then by
// ticket. The nodes of a job meet in the workspace: the CTA that arrives last finishes the tree in the same launch.
// Warps: warp 4 copies whole page-heads (K and V adjacent, one bulk copy) into a ring; warps 0 to 3 take pages from it.
// Page: tokens are the M axis of K Q^T, dimensions that of V^T P^T, so a group of up to 8 heads costs one N tile; warp
// w scores tokens 16 w to 16 w + 15, all warps exchange scores once through shared memory, and each owns a quarter of
// the dimensions. Two pages are computed side by side where registers allow: one warp a scheduler is bound by latency.
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
constexpr int TILES_M = PAD / 64;
constexpr int TILES_N = (GROUP + 7) / 8;
#include "decode_kv.cuh"
#include "decode_tree.cuh"

constexpr int PAGE_BYTES = 2 * SIDE_BYTES;

#ifndef CTAS
#define CTAS (SIDE_BYTES <= 8192 ? 2 : 1)
#endif
#ifndef STAGES
#define STAGES (SIDE_BYTES <= 4096 ? 8 : SIDE_BYTES <= 16384 ? 6 : SIDE_BYTES == 24576 ? 4 : 3)
#endif
// Pages computed side by side: two, where registers and the ring have room.
constexpr int SIDE = STAGES >= 4 && PAD / 64 * ((GROUP + 7) / 8) <= 4 ? 2 : 1;
constexpr int WARPS = 4;
constexpr int THREADS = (WARPS + 1) * 32;
constexpr int DESCRIPTORS = 4;
constexpr int SCORES_BYTES = SIDE * TILES_N * 8 * 64 * 4;

// Shared memory, from a base aligned to 1024 bytes.
constexpr int AT_SCORES = STAGES * PAGE_BYTES;
constexpr int AT_DESCRIPTORS = AT_SCORES + 2 * SCORES_BYTES;
constexpr int AT_BARRIERS = AT_DESCRIPTORS + DESCRIPTORS * 32;
constexpr int AT_LAST = AT_BARRIERS + 8 * 2 * (STAGES + DESCRIPTORS);

// A plan entry, i32: first index into the block table, pages, tokens, query row, output row, nodes of the job, slot of
// this node, slot of the job's first node, then the first four block ids.
constexpr int ENTRY = 12;
// A slot of the workspace: o in the order the threads hold it, then lse of the heads.
constexpr int SLOT_LSE = PAD * 8 * TILES_N;
constexpr int SLOT = SLOT_LSE + 32;

// Nodes of a split job that are merged at a time, and those of them that are loaded at a time.
constexpr int CHUNK_LEVEL = 5;
constexpr int CHUNK = 1 << CHUNK_LEVEL;
constexpr int BATCH_LEVEL = PART_FLOATS <= 10 ? 3 : PART_FLOATS <= 20 ? 2 : 0;
constexpr int BATCH = 1 << BATCH_LEVEL;

// Barriers of the ring (a page has landed, a stage is free) and of the descriptors (told, read).
struct Barriers {
  u32 full, free, told, read;

  __device__ __forceinline__ Barriers(u32 shared)
      : full(shared + AT_BARRIERS),
        free(full + 8 * STAGES),
        told(free + 8 * STAGES),
        read(told + 8 * DESCRIPTORS) {}
};

// A place in the ring and the parity to wait for there.
struct Ring {
  u32 stage, phase;

  __device__ __forceinline__ u32 after() const { return stage + 1 == STAGES ? 0 : stage + 1; }
  __device__ __forceinline__ void step() {
    stage = after();
    phase ^= stage == 0;
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
// Barrier of the four warps that compute.
__device__ __forceinline__ void consumers_sync() { asm volatile("bar.sync 1, 128;" ::: "memory"); }


struct Item {
  int pages, tokens, query_row, out_row, parts, slot, first_slot, head;
};

// Byte offsets that depend on the thread alone.
struct Lane {
  u32 warp, row, pair;  // row = lane / 4, pair = lane % 4
  u32 put_even, put_odd, get;
  PageLane page;

  __device__ __forceinline__ Lane(u32 thread) : page(thread / 32, thread % 32) {
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
  // An arrival overtakes loads from shared memory that are still queued, behind a fence of a neighbour for example, and
  // the stage would be overwritten under them: its address is made to depend on everything that was loaded.
  __syncwarp();
#pragma unroll
  for (int u = 0; u < PAGES; u++) {
    u32 loaded = 0;
#pragma unroll
    for (int m = 0; m < TILES_M; m++) loaded |= __float_as_uint(part[u].values.o[m][0][0]);
    if (threadIdx.x % 32 == 0) barrier_arrive(free[u] + (loaded & zero));
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

__device__ __forceinline__ void store_part(const Part& part, float* slot, const Lane& at) {
#pragma unroll
  for (int n = 0; n < TILES_N; n++) {
    if (n * 8 + at.pair * 2 >= GROUP) continue;
    if (at.warp == 0 && at.row == 0) {
      __stcg((float2*)(slot + SLOT_LSE + n * 8 + at.pair * 2), make_float2(part.lse[n][0], part.lse[n][1]));
    }
#pragma unroll
    for (int m = 0; m < TILES_M; m++) {
      const float(&o)[4] = part.values.o[m][n];
      __stcg((float4*)slot + ((at.warp * TILES_M + m) * TILES_N + n) * 32 + threadIdx.x % 32,
             make_float4(o[0], o[1], o[2], o[3]));
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

// Of a node that does not exist: zeros.
__device__ __forceinline__ void load_values(Values& values, const float* slot, bool exists, const Lane& at) {
#pragma unroll
  for (int n = 0; n < TILES_N; n++) {
#pragma unroll
    for (int m = 0; m < TILES_M; m++) {
      float4 o = make_float4(0.f, 0.f, 0.f, 0.f);
      if (exists && n * 8 + at.pair * 2 < GROUP) {
        o = __ldcg((const float4*)slot + ((at.warp * TILES_M + m) * TILES_N + n) * 32 + threadIdx.x % 32);
      }
      values.o[m][n][0] = o.x;
      values.o[m][n][1] = o.y;
      values.o[m][n][2] = o.z;
      values.o[m][n][3] = o.w;
    }
  }
}

// Weights of a chunk's tree in shared memory, [subtree][8 TILES_N heads], level by level.
__device__ __forceinline__ constexpr int weights_of(int level) { return CHUNK * 2 - (CHUNK * 2 >> level); }
constexpr int WEIGHTS_LSE = CHUNK * 2 - 2;

// right <- merge(left, right), neighbours `subtree` and `subtree + 1` of `level`.
__device__ __forceinline__ void merge_values(
    const Values& left, Values& right, u32 weights, int level, int subtree, const Lane& at) {
#pragma unroll
  for (int n = 0; n < TILES_N; n++) {
    float to_left[2], to_right[2];
    const u32 from = weights + ((weights_of(level) + subtree) * 8 * TILES_N + n * 8 + at.pair * 2) * 4;
    get_floats(to_left[0], to_left[1], from);
    get_floats(to_right[0], to_right[1], from + 32 * TILES_N);
#pragma unroll
    for (int m = 0; m < TILES_M; m++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        right.o[m][n][i] = merge_o(left.o[m][n][i], right.o[m][n][i], to_left[i & 1], to_right[i & 1]);
      }
    }
  }
}

// Finishes the tree over the `parts` nodes of one job and KV head, CHUNK nodes at a time: lanes are nodes while the
// weights are found, so that their latency is paid once a level; the values then only need multiply-adds.
__device__ __forceinline__ void merge_slots(
    Part& part, Spine& spine, u32 weights, const float* slots, u64 stride, int parts, const Lane& at) {
  const int lane = threadIdx.x % 32;
  for (int first = 0; first < parts; first += CHUNK) {
    const int count = min(parts - first, CHUNK);
    const float* const nodes = slots + (u64)first * stride;
    Values value[BATCH];
#pragma unroll
    for (int i = 0; i < BATCH; i++) load_values(value[i], nodes + (u64)i * stride, i < count, at);
    if (first > 0) consumers_sync();
    for (int head = at.warp; head < GROUP; head += WARPS) {
      float lse = lane < count ? __ldcg(nodes + (u64)lane * stride + SLOT_LSE + head) : NO_LSE;
#pragma unroll
      for (int level = 0; level < CHUNK_LEVEL; level++) {
        const float other = __shfl_xor_sync(~0u, lse, 1 << level);
        const bool right = lane >> level & 1;
        float to_left, to_right;
        lse = merge_lse(right ? other : lse, right ? lse : other, to_left, to_right);
        if ((lane & (1 << level) - 1) == 0) {
          const u32 to = weights + ((weights_of(level) + (lane >> level)) * 8 * TILES_N + head) * 4;
          put_float(to, right ? to_right : to_left);
        }
      }
      if (lane == 0) put_float(weights + (WEIGHTS_LSE * 8 * TILES_N + head) * 4, lse);
    }
    consumers_sync();
#pragma unroll 1
    for (int base = 0; base < count; base += BATCH) {
      if (base > 0) {
#pragma unroll
        for (int i = 0; i < BATCH; i++) load_values(value[i], nodes + (u64)(base + i) * stride, base + i < count, at);
      }
      // value[i] covers the subtree that ends with it; without a right half it is the left half.
#pragma unroll
      for (int level = 0; level < BATCH_LEVEL; level++) {
#pragma unroll
        for (int i = (2 << level) - 1; i < BATCH; i += 2 << level) {
          const int left = i - (1 << level);
          if (base + left + 1 < count) merge_values(value[left], value[i], weights, level, (base + left) >> level, at);
          else value[i] = value[left];
        }
      }
      // The batch's subtree joins those before it: a binary counter at the far end of the local memory.
#pragma unroll 1
      for (int level = BATCH_LEVEL; level < CHUNK_LEVEL; level++) {
        Part& held = spine.deep[DEEP - 1 - level];
        if (base >> level & 1) {
          merge_values(held.values, value[BATCH - 1], weights, level, (base >> level) - 1, at);
        } else if (base + BATCH < count) {
          held.values = value[BATCH - 1];
          break;
        }
      }
    }
#pragma unroll
    for (int n = 0; n < TILES_N; n++) {
      const u32 from = weights + (WEIGHTS_LSE * 8 * TILES_N + n * 8 + at.pair * 2) * 4;
      get_floats(part.lse[n][0], part.lse[n][1], from);
    }
    part.values = value[BATCH - 1];
    // Rare enough for the local memory, which leaves the registers to the values.
    if (parts > CHUNK) spine.push<LOW>(part, first / CHUNK);
  }
  if (parts > CHUNK) spine.finish<LOW>(part, (parts + CHUNK - 1) / CHUNK);
}

__device__ __forceinline__ void consume(
    u32 shared, const u16* queries, float scale, u32* arrivals, float* slots, int kv_heads, const Results& to,
    u32 zero) {
  const Lane at(threadIdx.x);
  const Barriers barriers(shared);
  const u32 full = barriers.full, free = barriers.free, told = barriers.told, read = barriers.read;
  u32 turn = 0;
  Ring ring{0, 0};
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
    __syncwarp();
    if (threadIdx.x % 32 == 0) barrier_arrive(read + 8 * descriptor + ((what.x | where.x) & zero));
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
    int page = 0;
    for (; SIDE == 2 && page + 1 < item.pages; page += 2) {
      const u32 visible = item.tokens - (page + 1) * 64, scores = shared + AT_SCORES + turn * SCORES_BYTES;
      const u32 pages[2] = {shared + ring.stage * PAGE_BYTES, shared + ring.after() * PAGE_BYTES};
      const u32 frees[2] = {free + 8 * ring.stage, free + 8 * ring.after()};
      Part both[2];
      barrier_wait(full + 8 * ring.stage, ring.phase);
      ring.step();
      barrier_wait(full + 8 * ring.stage, ring.phase);
      ring.step();
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
      const u32 visible = item.tokens - page * 64, scores = shared + AT_SCORES + turn * SCORES_BYTES;
      if (SIDE == 1 && visible >= 64) attend_pages<1, true>(one, pages, frees, scores, query, 64, scales, zero, at);
      else attend_pages<1, false>(one, pages, frees, scores, query, visible, scales, zero, at);
      spine.push(one[0], page);
      turn ^= 1;
    }
    spine.finish(part, item.pages);
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

    if (item.parts > 1) {
      store_part(part, slots + ((u64)item.slot * kv_heads + item.head) * SLOT, at);
      consumers_sync();
      if (threadIdx.x == 0) {
        u32* const counter = arrivals + (u64)item.first_slot * kv_heads + item.head;
        u32 before;
        asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
        const u32 last = before == (u32)item.parts - 1;
        if (last) *counter = 0;
        put_word(shared + AT_LAST, last);
      }
      consumers_sync();
      u32 last;
      asm volatile("ld.shared.u32 %0, [%1];" : "=r"(last) : "r"(shared + AT_LAST) : "memory");
      if (!last) continue;
      // The scores last used, so that the next page, which uses the others, may begin while a warp still reads here.
      const u32 weights = shared + AT_SCORES + (turn ^ 1) * SCORES_BYTES;
      const float* const first = slots + ((u64)item.first_slot * kv_heads + item.head) * SLOT;
      merge_slots(part, spine, weights, first, (u64)kv_heads * SLOT, item.parts, at);
    }
    store_result(part, to, item.out_row, item.head, at);
  }
}

__device__ __forceinline__ void produce(
    u32 shared, const u8* pool, u64 block_bytes, const int* table, const int* header, const int* entries, u32* tickets,
    int kv_heads, int early) {
  const u32 lane = threadIdx.x % 32;
  const Barriers barriers(shared);
  const u32 full = barriers.full, free = barriers.free, told = barriers.told, read = barriers.read;
  const int first = blockIdx.x, grid = gridDim.x;
  u32 number = 0;
  Ring ring{0, 1};
  bool waited = !early;
  if (waited) await_predecessors();
  // The plan reserves entries for one item a CTA, so this may be read before it is known whether there is such an item.
  int fields = lane < ENTRY ? entries[first / kv_heads * ENTRY + lane] : 0;
  const int items = header[0];
  const bool tickets_drawn = items > 2 * grid;
  for (int item = first, next = first + grid; item < items;) {
    const int upcoming = next < items && lane < ENTRY ? entries[next / kv_heads * ENTRY + lane] : 0;
    const int head = item % kv_heads;
    const int start = __shfl_sync(~0u, fields, 0), pages = __shfl_sync(~0u, fields, 1);
    const int parts = __shfl_sync(~0u, fields, 5);
    const int slot = __shfl_sync(~0u, fields, 6), first_slot = __shfl_sync(~0u, fields, 7);
    int blocks = (int)lane < pages ? table[start + lane] : 0;
    int following = (int)lane + 32 < pages ? table[start + lane + 32] : 0;
    u32 ticket = 0;
    if (waited && tickets_drawn && lane == 0) ticket = atomicAdd(tickets, 1);

    const u32 descriptor = number % DESCRIPTORS;
    barrier_wait(read + 8 * descriptor, (number / DESCRIPTORS & 1) ^ 1);
    // Descriptor: pages, tokens, query row, output row, nodes, slot, first slot, head.
    int field = __shfl_sync(~0u, fields, lane + 1 & 31);
    if (lane == 7) field = head;
    if (lane < 8) put_word(shared + AT_DESCRIPTORS + descriptor * 32 + lane * 4, field);
    __syncwarp();
    if (lane == 0) barrier_arrive(told + 8 * descriptor);
    number++;

    // Before the predecessor has ended, only pages that it cannot have written: all but the last of the sequence.
    const int fresh = slot - first_slot == parts - 1 ? pages - 1 : pages;
    for (int page = 0; page < pages; page++) {
      if (page % 32 == 0 && page > 0) {
        blocks = following;
        const int ahead = page + 32 + (int)lane;
        following = ahead < pages ? table[start + ahead] : 0;
      }
      const int block = page < 4 ? __shfl_sync(~0u, fields, 8 + page) : __shfl_sync(~0u, blocks, page % 32);
      if (!waited && page == fresh) {
        await_predecessors();
        waited = true;
        if (tickets_drawn && lane == 0) ticket = atomicAdd(tickets, 1);
      }
      const u32 landed = full + 8 * ring.stage;
      barrier_wait(free + 8 * ring.stage, ring.phase);
      if (lane == 0) {
        const u8* const from = pool + (u64)block * block_bytes + (u64)head * PAGE_BYTES;
        barrier_expect(landed, PAGE_BYTES);
        bulk_copy_once(shared + ring.stage * PAGE_BYTES, from, PAGE_BYTES, landed);
      }
      __syncwarp();
      ring.step();
    }
    if (!waited) {
      await_predecessors();
      waited = true;
      if (tickets_drawn && lane == 0) ticket = atomicAdd(tickets, 1);
    }
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
  if (lane == 0) {
    put_word(shared + AT_DESCRIPTORS + descriptor * 32, ~0u);
    barrier_arrive(told + 8 * descriptor);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, CTAS) attend_decode(
    const u8* pool, u64 block_bytes, const int* table, const u16* queries, const int* header, const int* entries,
    u32* tickets, u32* arrivals, float* slots, u16* out, float* o, float* lse, int kv_heads, float scale, int early) {
  extern __shared__ __align__(1024) u8 memory[];
  const u32 shared = shared_address(memory);
  if (threadIdx.x == 0) {
    const Barriers at(shared);
    for (int i = 0; i < STAGES; i++) {
      barrier_init(at.full + 8 * i, 1);
      barrier_init(at.free + 8 * i, WARPS);
    }
    for (int i = 0; i < DESCRIPTORS; i++) {
      barrier_init(at.told + 8 * i, 1);
      barrier_init(at.read + 8 * i, WARPS);
    }
    barriers_made();
  }
  __syncthreads();
  if (threadIdx.x < WARPS * 32) {
    // A zero that the compiler does not know.
    const u32 zero = (u32)early >> 1;
    consume(shared, queries, scale, arrivals, slots, kv_heads, Results{out, o, lse, kv_heads * GROUP}, zero);
  } else {
    produce(shared, pool, block_bytes, table, header, entries, tickets, kv_heads, early);
  }
}
