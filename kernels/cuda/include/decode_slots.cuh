// Where nodes of split jobs meet: slots in global memory for their partials, and how partials are stored and merged.
//
// Nobody fences. A number that is not there yet shows as ABSENT, which no arithmetic gives; readers ask again until it is
// there and make it ABSENT again for the next launch. Nodes say beforehand that they will be there soon, and whoever says so
// last of a group merges it. It waits for nodes only whose last pages have landed where they are computed.
#pragma once
#include "decode_page.cuh"

// A slot of the workspace, f32: o of every head in the order the threads hold it, then lse of the heads. What is ABSENT has
// not been written yet: no arithmetic gives these bits, so a reader sees of every number by itself whether it is there.
constexpr int OWN = 2 * TILES_M;
constexpr int WARP_DIMS = ALONE ? PAD : PAD / 4;
constexpr int SLOT_LSE = GROUP * PAD;
constexpr int SLOT = SLOT_LSE + 32;
constexpr u32 ABSENT = 0xffffffffu;

// Nodes of a split job that are merged at a time, and how the threads share them: PIECE numbers of every node each, in
// ROUNDS.
constexpr int MERGE_LEVEL = 4;
constexpr int MERGED = 1 << MERGE_LEVEL;
constexpr int PIECE = GROUP * PAD >= 512 ? 4 : 2;
constexpr int PIECES = GROUP * PAD / PIECE;
constexpr int ROUNDS = (PIECES + 127) / 128;

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
  for (int round = 0; round < ROUNDS; round++) {
    float value[MERGED][PIECE];
    const int piece = threadIdx.x + round * 128;
    const auto load = [&] {
#pragma unroll
      for (int i = 0; i < MERGED; i++) {
        // What is not there merges without changing a bit, the sign of a zero neither.
#pragma unroll
        for (int j = 0; j < PIECE; j++) value[i][j] = -0.f;
        if (i < count && piece < PIECES) get_slot(value[i], nodes + (u64)i * stride + piece * PIECE);
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
        for (int j = 0; j < PIECE; j++) most = max(most, __float_as_uint(value[i][j]));
      }
      if (!__any_sync(~0u, most == ABSENT)) break;
      load();
    }
#pragma unroll
    for (int i = 0; i < MERGED; i++) {
      if (i < count && piece < PIECES) clear_slot(value[i], nodes + (u64)i * stride + piece * PIECE);
    }
    if (round == 0) consumers_sync();
    // value[i] covers the subtree that ends with it.
#pragma unroll
    for (int level = 0; level < MERGE_LEVEL; level++) {
#pragma unroll
      for (int i = (2 << level) - 1; i < MERGED; i += 2 << level) {
        const int head = min(piece * PIECE / PAD, GROUP - 1);
        float to_left, to_right;
        get_floats(to_left, to_right, weights + ((merges_below(level) + (i >> level + 1)) * 8 * TILES_N + head) * 8);
#pragma unroll
        for (int j = 0; j < PIECE; j++) value[i][j] = merge_o(value[i - (1 << level)][j], value[i][j], to_left, to_right);
      }
    }
    if (piece >= PIECES) continue;
    if (parent) put_slot(parent + piece * PIECE, value[MERGED - 1]);
    else store_piece(value[MERGED - 1], piece * PIECE, to, row, kv_head);
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
