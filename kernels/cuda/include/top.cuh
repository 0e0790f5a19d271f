// The 64 largest of many logits or keys, by one block of threads.
//
// A key is the order-preserving image of a logit above the inverted id: all keys differ, and descending keys are the total order of
// tokens: larger logit first, equal ones by lower id. Each warp ranks the maxima of its threads; as many of them as the warps need for
// 64 together give a floor that at least 64 keys reach, and about twice as many do. Those are gathered and ranked by
// counting. Of 4096 evenly mixed ones about 107 do, hardly ever more than 170. If more than GATHERED reach it (many equal
// logits, or a crowd in few threads), the 64th largest key is found bit by bit.
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
  u32 floors[SELECTOR_WARPS];
  u32 maxima[SELECTOR_WARPS];
  u32 count;
  u32 reach;
  alignas(16) u64 gathered[GATHERED];
  u64 sorted[TOP];
};

// The largest value of all threads and the floor: an image of a logit that at least 64 keys reach, 0 when the first `warps` warps,
// all of whose threads have keys, are too few to tell. `most` is the image of a thread's largest logit, 0 if it has none.
__device__ __forceinline__ void find_floor(Selection& s, u32 most, u32 warps, u32& floor, u32& largest) {
  const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const u32 wanted = warps == 0 ? TOP : (TOP + warps - 1) / warps;
  // Five low bits make way for the lane, so that maxima differ; the floor is rounded down by as much.
  const u32 mine = (most & ~31u) | lane;
  u32 rank = 0;
#pragma unroll 8
  for (u32 turn = 1; turn < 32; turn++) rank += __shfl_sync(0xffffffffu, mine, lane + turn) > mine;
  const u32 holder = __ballot_sync(0xffffffffu, rank == wanted - 1);
  const u32 least = __shfl_sync(0xffffffffu, mine, __ffs(holder) - 1) & ~31u;
  const u32 top = __reduce_max_sync(0xffffffffu, most);
  if (lane == 0) {
    s.floors[warp] = wanted > 32 ? 0 : least;
    s.maxima[warp] = top;
  }
  if (threadIdx.x == 0) s.count = 0;
  __syncthreads();
  floor = 0xffffffffu;
  largest = 0;
#pragma unroll
  for (u32 w = 0; w < SELECTOR_WARPS; w++) {
    if (w < warps) floor = min(floor, s.floors[w]);
    largest = max(largest, s.maxima[w]);
  }
  if (warps == 0) floor = 0;
}

// Place in `gathered` of the first of `own` keys of this thread. All threads take part.
__device__ __forceinline__ u32 reserve(Selection& s, u32 own) {
  const u32 lane = threadIdx.x % 32;
  u32 through = own;
#pragma unroll
  for (u32 step = 1; step < 32; step *= 2) {
    const u32 left = __shfl_up_sync(0xffffffffu, through, step);
    if (lane >= step) through += left;
  }
  u32 base = 0;
  if (lane == 31 && through > 0) base = atomicAdd(&s.count, through);
  return __shfl_sync(0xffffffffu, base, 31) + through - own;
}

// For when more keys reach the floor than can be gathered: finds the 64th largest key bit by bit and gathers the 64 exact
// ones. `key_at(i)` is the i-th key of this thread for i below `turns`, 0 for none; it reads memory, to keep this rare path short.
template <typename KeyAt> __device__ __forceinline__ void gather_crowd(Selection& s, u32 turns, KeyAt key_at) {
  u64 least = 0;
#pragma unroll 1
  for (int bit = 63; bit >= 0; bit--) {
    const u64 trial = least | (1ull << bit);
    if (threadIdx.x == 0) s.reach = 0;
    __syncthreads();
    u32 reach = 0;
#pragma unroll 1
    for (u32 i = 0; i < turns; i++) reach += key_at(i) >= trial;
    reach = __reduce_add_sync(0xffffffffu, reach);
    if (threadIdx.x % 32 == 0) atomicAdd(&s.reach, reach);
    __syncthreads();
    if (s.reach >= TOP) least = trial;
    __syncthreads();
  }
  if (threadIdx.x == 0) s.count = 0;
  __syncthreads();
#pragma unroll 1
  for (u32 i = 0; i < turns; i++) {
    const u64 key = key_at(i);
    if (key >= least) s.gathered[atomicAdd(&s.count, 1u)] = key;
  }
  __syncthreads();
}

// Fills `sorted` with the largest of the `count` gathered keys, descending, then zeros; there for all threads on return.
__device__ __forceinline__ void rank_gathered(Selection& s, u32 count) {
  if (threadIdx.x < TOP) s.sorted[threadIdx.x] = 0;
  __syncthreads();
  // Few keys: several threads share the comparisons of one.
  const u32 share = count <= SELECTORS / 4 ? 4 : count <= SELECTORS / 2 ? 2 : 1;
  const u32 at = threadIdx.x / share;
  const u64 mine = at < count ? s.gathered[at] : 0;
  u32 rank = 0;
#pragma unroll 4
  for (u32 i = threadIdx.x % share; i < count; i += share) rank += s.gathered[i] > mine;
  if (share >= 2) rank += __shfl_xor_sync(0xffffffffu, rank, 1);
  if (share == 4) rank += __shfl_xor_sync(0xffffffffu, rank, 2);
  if (at < count && threadIdx.x % share == 0 && rank < TOP) s.sorted[rank] = mine;
  __syncthreads();
}
