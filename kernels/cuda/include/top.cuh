// The 64 largest of many logits or keys, by one block of threads.
//
// A key is the order-preserving image of a logit above the inverted id: all keys differ, and descending keys are the total order of
// tokens: larger logit first, equal ones by lower id. Each thread knows the largest logit of its keys, each warp offers one of
// these as a floor, and the highest floor that the largest logits of 64 threads reach is taken. Threads whose largest logit
// reaches it are few, and only their keys are looked at again: from memory, by all threads. Of 4096 evenly mixed keys about 80
// reach the floor. If more than GATHERED do (many equal logits, or a crowd in few threads), the 64th largest is found bit by bit.
//
// This runs once a block, so it is kept short: instructions that are fetched once cost as much as trips to memory.
#pragma once
#include "elements.cuh"

#define TOP 64
#define SELECTORS 256
#define SELECTOR_WARPS (SELECTORS / 32)
#define GATHERED 192
// Order-preserving image of -Infinity; smaller ones stand for nothing.
#define LOWEST 0x007fffffu

__device__ __forceinline__ u32 ordered_of(float x) {
  // -0 counts as 0, NaN as -Infinity.
  const u32 bits = __float_as_uint(x == 0.0f ? 0.0f : x != x ? -INFINITE : x);
  return bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
}

__device__ __forceinline__ float unordered(u32 ordered) {
  if (ordered <= LOWEST) return -INFINITE;
  return __uint_as_float(ordered ^ ((ordered >> 31) != 0 ? 0x80000000u : 0xffffffffu));
}

// No key is 0.
__device__ __forceinline__ u64 key_of(float logit, u32 id) { return ((u64)ordered_of(logit) << 32) | ~id; }
__device__ __forceinline__ u32 id_of(u64 key) { return ~(u32)key; }
__device__ __forceinline__ float logit_of(u64 key) { return unordered((u32)(key >> 32)); }

// Scratch and result of a selection.
struct Selection {
  alignas(16) u32 floors[SELECTOR_WARPS];
  alignas(16) u32 votes[SELECTOR_WARPS];
  u32 maxima[SELECTOR_WARPS];
  u32 holders;
  u32 count;
  u32 reach;
  u16 holder[SELECTORS];
  alignas(16) u64 gathered[GATHERED];
  u64 sorted[TOP];
};

// The largest value of all threads, and a floor: an image of a logit that at least 64 keys reach, or 0. `most` is the image of the
// thread's largest logit, 0 if it has none; all threads of the first `warps` warps have one.
__device__ __forceinline__ void find_floor(Selection& s, u32 most, u32 warps, u32& floor, u32& largest) {
  const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const u32 wanted = warps < 2 ? 0 : (TOP + warps - 1) / warps;
  // Five low bits make way for the lane, so that maxima differ; the floor is rounded down by as much.
  u32 left = (most & ~31u) | lane, offer = 0;
#pragma unroll 1
  for (u32 i = 0; i < wanted; i++) {
    offer = __reduce_max_sync(0xffffffffu, left);
    if (left == offer) left = 0;
  }
  const u32 top = __reduce_max_sync(0xffffffffu, most);
  if (lane == 0) {
    s.floors[warp] = offer & ~31u;
    s.maxima[warp] = top;
    s.votes[warp] = 0;
  }
  if (threadIdx.x == 0) s.holders = s.count = 0;
  __syncthreads();
  u32 votes = 0;
  largest = 0;
#pragma unroll
  for (u32 w = 0; w < SELECTOR_WARPS; w++) {
    const u32 voters = __popc(__ballot_sync(0xffffffffu, most >= s.floors[w]));
    if (lane == w) votes = voters;
    largest = max(largest, s.maxima[w]);
  }
  if (lane < SELECTOR_WARPS) atomicAdd(&s.votes[lane], votes);
  __syncthreads();
  floor = 0;
#pragma unroll
  for (u32 w = 0; w < SELECTOR_WARPS; w++) {
    if (s.votes[w] >= TOP) floor = max(floor, s.floors[w]);
  }
}

// Place among what `keep` asks for, counted in `count`, for a whole warp.
__device__ __forceinline__ u32 place_of(u32& count, bool keep) {
  const u32 lane = threadIdx.x % 32, kept = __ballot_sync(0xffffffffu, keep);
  u32 base = 0;
  if (lane == 0 && kept != 0) base = atomicAdd(&count, __popc(kept));
  return __shfl_sync(0xffffffffu, base, 0) + __popc(kept & ((1u << lane) - 1));
}

// For when more keys reach the floor than can be gathered: finds the 64th largest key bit by bit and gathers the 64.
template <u32 ITEMS, typename KeyAt> __device__ __forceinline__ void gather_crowd(Selection& s, KeyAt key_at) {
  u64 least = 0;
#pragma unroll 1
  for (int bit = 63; bit >= 0; bit--) {
    const u64 trial = least | (1ull << bit);
    if (threadIdx.x == 0) s.reach = 0;
    __syncthreads();
    u32 reach = 0;
#pragma unroll 4
    for (u32 i = 0; i < ITEMS; i++) reach += key_at(threadIdx.x, i) >= trial;
    reach = __reduce_add_sync(0xffffffffu, reach);
    if (threadIdx.x % 32 == 0) atomicAdd(&s.reach, reach);
    __syncthreads();
    reach = s.reach;
    if (reach >= TOP) least = trial;
    __syncthreads();
    if (reach == TOP) break;
  }
  if (threadIdx.x == 0) s.count = 0;
  __syncthreads();
#pragma unroll 1
  for (u32 i = 0; i < ITEMS; i++) {
    const u64 key = key_at(threadIdx.x, i);
    if (key >= least) s.gathered[atomicAdd(&s.count, 1u)] = key;
  }
  __syncthreads();
}

// Gathers the keys that reach the floor, or the 64 largest if these are too many; returns how many. `key_at(t, i)` is key i of ITEMS
// of thread t, 0 for none.
template <u32 ITEMS, typename KeyAt>
__device__ __forceinline__ u32 gather(Selection& s, u32 most, u32 floor, KeyAt key_at) {
  const u32 lane = threadIdx.x % 32;
  const bool holds = most >= max(floor, 1u);
  const u32 at = place_of(s.holders, holds);
  if (holds) s.holder[at] = (u16)threadIdx.x;
  __syncthreads();
  const u64 least = max((u64)floor << 32, (u64)1);
  const u32 items = s.holders * ITEMS;
#pragma unroll 1
  for (u32 first = threadIdx.x - lane; first < items; first += SELECTORS) {
    const u32 item = first + lane;
    const u64 key = item < items ? key_at(s.holder[item / ITEMS], item % ITEMS) : 0;
    const u32 to = place_of(s.count, key >= least);
    if (key >= least && to < GATHERED) s.gathered[to] = key;
  }
  __syncthreads();
  const u32 count = s.count;
  if (count <= GATHERED) return count;
  gather_crowd<ITEMS>(s, key_at);
  return TOP;
}

// Fills `sorted` with the largest of the `count` gathered keys, descending, then zeros; there for all threads on return.
__device__ __forceinline__ void rank_gathered(Selection& s, u32 count) {
  if (threadIdx.x < TOP) s.sorted[threadIdx.x] = 0;
  __syncthreads();
  // Few keys: two threads share the comparisons of one.
  const u32 share = count <= SELECTORS / 2 ? 2 : 1;
  const u32 at = threadIdx.x / share;
  const u64 mine = at < count ? s.gathered[at] : 0;
  u32 rank = 0;
#pragma unroll 4
  for (u32 i = threadIdx.x % share; i < count; i += share) rank += s.gathered[i] > mine;
  if (share == 2) rank += __shfl_xor_sync(0xffffffffu, rank, 1);
  if (at < count && threadIdx.x % share == 0 && rank < TOP) s.sorted[rank] = mine;
  __syncthreads();
}
