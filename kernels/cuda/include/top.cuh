// The 64 largest of up to 4096 keys that a block keeps in registers.
#pragma once
#include "elements.cuh"

#define TOP 64
#define SELECTORS 256
#define KEPT 16
#define CHUNK (SELECTORS * KEPT)
#define GROUPS (SELECTORS / 2)
#define CROWD 256

// Keys that differ for all tokens: the larger logit first, equal ones by lower id. NaN counts as -Infinity, -0 as 0. No key is 0.
__device__ __forceinline__ u64 key_of(float logit, u32 id) {
  const u32 bits = __float_as_uint(logit == 0.0f ? 0.0f : logit != logit ? -INFINITE : logit);
  const u32 ordered = bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
  return ((u64)ordered << 32) | ~id;
}

__device__ __forceinline__ u32 id_of(u64 key) { return ~(u32)key; }

// The logit of a key; -Infinity for none.
__device__ __forceinline__ float logit_of(u64 key) {
  const u32 ordered = (u32)(key >> 32);
  if (ordered == 0) return -INFINITE;
  return __uint_as_float(ordered ^ ((ordered >> 31) != 0 ? 0x80000000u : 0xffffffffu));
}

// Scratch and result of a selection.
struct Selection {
  alignas(16) u32 maxima[GROUPS];
  alignas(16) u64 gathered[CROWD];
  u64 sorted[TOP];
  u32 floor;
  u32 count;
  u32 reach;
};

// Gathers the keys that reach `least`; `count` may exceed what is gathered.
__device__ __forceinline__ void gather(Selection& s, const u64 (&key)[KEPT], u64 least) {
  if (threadIdx.x == 0) s.count = 0;
  __syncthreads();
#pragma unroll
  for (u32 i = 0; i < KEPT; i++) {
    if (key[i] < least) continue;
    const u32 at = atomicAdd(&s.count, 1u);
    if (at < CROWD) s.gathered[at] = key[i];
  }
  __syncthreads();
}

// The 64th largest key, which exists: the largest value that at least 64 keys reach, found from the highest bit on.
__device__ __forceinline__ u64 least_of_top(Selection& s, const u64 (&key)[KEPT]) {
  u64 least = 0;
#pragma unroll 1
  for (int bit = 63; bit >= 0; bit--) {
    const u64 trial = least | (1ull << bit);
    u32 reach = 0;
#pragma unroll
    for (u32 i = 0; i < KEPT; i++) reach += key[i] >= trial ? 1 : 0;
    if (threadIdx.x == 0) s.reach = 0;
    __syncthreads();
    reach = __reduce_add_sync(0xffffffffu, reach);
    if (threadIdx.x % 32 == 0) atomicAdd(&s.reach, reach);
    __syncthreads();
    if (s.reach >= TOP) least = trial;
    __syncthreads();
  }
  return least;
}

// Fills `sorted` with the largest keys of all SELECTORS threads, descending, then zeros. All threads take part; the result is
// there for all of them on return. A key of 0 stands for none, others differ.
__device__ __forceinline__ void select(Selection& s, const u64 (&key)[KEPT]) {
  const u32 thread = threadIdx.x;
  u32 most = 0;
#pragma unroll
  for (u32 i = 0; i < KEPT; i++) most = max(most, (u32)(key[i] >> 32));
  most = max(most, __shfl_xor_sync(0xffffffffu, most, 1));
  // Seven low bits make way for the group, so that maxima differ; the floor below is rounded down by as much.
  if (thread % 2 == 0) s.maxima[thread / 2] = most == 0 ? 0 : (most & ~(GROUPS - 1u)) | (thread / 2);
  if (thread == 0) s.floor = 0;
  if (thread < TOP) s.sorted[thread] = 0;
  __syncthreads();
  if (thread < GROUPS) {
    const u32 mine = s.maxima[thread];
    const uint4* maxima = reinterpret_cast<const uint4*>(s.maxima);
    u32 rank = 0;
#pragma unroll 8
    for (u32 i = 0; i < GROUPS / 4; i++) {
      const uint4 four = maxima[i];
      rank += (four.x > mine) + (four.y > mine) + (four.z > mine) + (four.w > mine);
    }
    if (rank == TOP - 1 && mine != 0) s.floor = mine & ~(GROUPS - 1u);
  }
  __syncthreads();
  const u64 least = s.floor == 0 ? 1 : (u64)s.floor << 32;
  gather(s, key, least);
  if (s.count > CROWD) {
    const u64 exact = least_of_top(s, key);
    gather(s, key, exact);
  }
  const u32 count = s.count;
  if (thread < count) {
    const u64 mine = s.gathered[thread];
    u32 rank = 0;
#pragma unroll 4
    for (u32 i = 0; i < count; i++) rank += s.gathered[i] > mine;
    if (rank < TOP) s.sorted[rank] = mine;
  }
  __syncthreads();
}
