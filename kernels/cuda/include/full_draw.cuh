// The full path of a draw, and the definition of sampling (runtime/sampling/full_draw.ts): walks over all tokens of a row in
// total order, by a cluster of blocks.
//
// A walk narrows an interval of keys (top.cuh: descending keys are the total order) to the token in which it ends. Each turn sums
// count and mass of the tokens from eight bounds on: at first by distance from the largest logit, then evenly over the interval;
// once few tokens are left, every block gathers its own of them. All blocks see the same sums and take the same turns. Sums are
// in f64 and in one fixed order but for the gathered keys.
//
// Where a target lies within MARGIN of the mass of all tokens from either end of the token it falls into, the host's sums could
// say otherwise: nothing is decided then.
#pragma once
#include "cluster.cuh"
#include "elements.cuh"
#include "random.cuh"
#include "sample_row.cuh"
#include "top.cuh"

#define DRAWERS 384
#define DRAWER_WARPS (DRAWERS / 32)
#define BOUNDS 8
// Sums of a turn: one for each bound, and one for the tokens within the depth of the row.
#define SUMS (BOUNDS + 1)
#define LISTED 2048
// The host's exponentials are right to 1e-12, those here and all sums to far less.
#define MARGIN 4e-12

// Scratch of a block.
struct FullDraw {
  double warpMass[SUMS][DRAWER_WARPS];
  u32 warpCount[SUMS][DRAWER_WARPS];
  // What each block of the cluster has; of even and odd turns, so that one barrier a turn is enough.
  double blockMass[2][CLUSTER][SUMS];
  u32 blockCount[2][CLUSTER][SUMS];
  double mass[SUMS];
  u32 count[SUMS];
  double firstMass[SUMS];
  u32 firstCount[SUMS];
  u64 bounds[BOUNDS];
  u32 listed;
  u64 list[LISTED];
};

// exp(x) for x <= 0 within 1e-15 of itself; 0 below -708.
__device__ __forceinline__ double exp_of_negative(double x) {
  const double n = rint(x * 1.4426950408889634074);
  double r = fma(n, -0.69314718055994528623, x);
  r = fma(n, -2.3190468138462995584e-17, r);
  // Taylor to r^12 for |r| <= ln 2 / 2.
  double y = 1.0 / 479001600.0;
  y = fma(y, r, 1.0 / 39916800.0);
  y = fma(y, r, 1.0 / 3628800.0);
  y = fma(y, r, 1.0 / 362880.0);
  y = fma(y, r, 1.0 / 40320.0);
  y = fma(y, r, 1.0 / 5040.0);
  y = fma(y, r, 1.0 / 720.0);
  y = fma(y, r, 1.0 / 120.0);
  y = fma(y, r, 1.0 / 24.0);
  y = fma(y, r, 1.0 / 6.0);
  y = fma(y, r, 0.5);
  y = fma(y, r, 1.0);
  y = fma(y, r, 1.0);
  return x < -708.0 ? 0.0 : y * __hiloint2double((1023 + (int)n) << 20, 0);
}

struct Scale {
  double largest;
  double inverseTemperature;
  double depth;
};

__device__ __forceinline__ double weight_of(const Scale& scale, float logit) {
  return exp_of_negative((logit - scale.largest) * scale.inverseTemperature);
}

// Tokens a thread takes at once, the first ones it takes, and the way to the next.
constexpr u32 ROW_VECTOR = VOCAB % (16 / sizeof(IN)) == 0 ? 16 / sizeof(IN) : 1;
constexpr u32 TOKEN_STRIDE = CLUSTER * DRAWERS * ROW_VECTOR;
__device__ __forceinline__ u32 first_token() { return (blockIdx.x % CLUSTER * DRAWERS + threadIdx.x) * ROW_VECTOR; }

// Fills `mass` and `count` of all blocks with the sums over the tokens of the row, or of the list, from each of `bounds` on,
// and over those within the depth. `turn` counts up from call to call.
__device__ __noinline__ void sum_tokens(FullDraw& s, const IN* row, bool listed, Scale scale, u32 turn) {
  double mass[SUMS] = {};
  u32 count[SUMS] = {};
  if (listed) {
    for (u32 i = threadIdx.x; i < s.listed; i += DRAWERS) {
      const u64 key = s.list[i];
      const double weight = weight_of(scale, logit_of(key));
#pragma unroll
      for (u32 j = 0; j < BOUNDS; j++) {
        if (key < s.bounds[j]) continue;
        mass[j] += weight;
        count[j]++;
      }
    }
  } else {
    u64 bounds[BOUNDS];
#pragma unroll
    for (u32 j = 0; j < BOUNDS; j++) bounds[j] = s.bounds[j];
    for (u32 id = first_token(); id < VOCAB; id += TOKEN_STRIDE) {
      float v[ROW_VECTOR];
      load(row + id, v);
      double weight[ROW_VECTOR];
#pragma unroll
      for (u32 k = 0; k < ROW_VECTOR; k++) weight[k] = weight_of(scale, v[k]);
#pragma unroll
      for (u32 k = 0; k < ROW_VECTOR; k++) {
        const u64 key = key_of(v[k], id + k);
#pragma unroll
        for (u32 j = 0; j < BOUNDS; j++) {
          if (key < bounds[j]) continue;
          mass[j] += weight[k];
          count[j]++;
        }
        // A token of -Infinity is within no depth but an infinite one, for which nobody asks.
        if ((scale.largest - v[k]) * scale.inverseTemperature <= scale.depth) {
          mass[BOUNDS] += weight[k];
          count[BOUNDS]++;
        }
      }
    }
  }
#pragma unroll
  for (u32 j = 0; j < SUMS; j++) {
#pragma unroll
    for (u32 step = 16; step > 0; step /= 2) mass[j] += __shfl_xor_sync(0xffffffffu, mass[j], step);
    count[j] = __reduce_add_sync(0xffffffffu, count[j]);
    if (threadIdx.x % 32 == 0) {
      s.warpMass[j][threadIdx.x / 32] = mass[j];
      s.warpCount[j][threadIdx.x / 32] = count[j];
    }
  }
  __syncthreads();
  if (threadIdx.x < SUMS * CLUSTER) {
    const u32 j = threadIdx.x % SUMS, to = threadIdx.x / SUMS, from = blockIdx.x % CLUSTER;
    double blockMass = 0.0;
    u32 blockCount = 0;
    for (u32 warp = 0; warp < DRAWER_WARPS; warp++) {
      blockMass += s.warpMass[j][warp];
      blockCount += s.warpCount[j][warp];
    }
    store_remote(&s.blockMass[turn % 2][from][j], to, blockMass);
    store_remote(&s.blockCount[turn % 2][from][j], to, blockCount);
  }
  sync_cluster();
  if (threadIdx.x < SUMS) {
    double all = 0.0;
    u32 number = 0;
    for (u32 rank = 0; rank < CLUSTER; rank++) {
      all += s.blockMass[turn % 2][rank][threadIdx.x];
      number += s.blockCount[turn % 2][rank][threadIdx.x];
    }
    s.mass[threadIdx.x] = all;
    s.count[threadIdx.x] = number;
  }
  __syncthreads();
}

// Where a walk ends: at the first prefix of `count` tokens, or whose mass reaches (or, `beyond`, exceeds) `mass`.
struct Target {
  u32 count;
  double mass;
  bool beyond;

  __device__ __forceinline__ bool ends(u32 reachedCount, double reached) const {
    return reachedCount >= count || (beyond ? reached > mass : reached >= mass);
  }
};

// Part of the order that holds the end of a walk: keys in [low, high), and what comes before them.
struct Part {
  u64 low;
  u64 high;
  u32 count;
  u32 before;
  double massBefore;
};

// Narrows a part to what lies between two bounds. Sums are those of all tokens from a bound on, but for `base`, which come first.
__device__ __forceinline__ Part narrow(
    const FullDraw& s, const double* mass, const u32* count, const Part& in, u32 base, double massBase, const Target& target) {
  Part part = in;
  bool found = false;
#pragma unroll 1
  for (u32 j = 0; j < BOUNDS && !found; j++) {
    const u32 through = base + count[j];
    const double massThrough = massBase + mass[j];
    part.low = s.bounds[j];
    part.count = through - part.before;
    found = target.ends(through, massThrough);
    if (found || j == BOUNDS - 1) break;
    part.high = s.bounds[j];
    part.before = through;
    part.massBefore = massThrough;
  }
  return part;
}

// The token of a row that all its logits select; -1 when nothing is decided. All threads of the cluster take part and get the
// same answer. `accepted` is the number of the draw; `largest` is the logit of the first token.
__device__ __forceinline__ i32 draw_from_all(FullDraw& s, const Row& how, u64 accepted, const IN* row, float largest) {
  const Scale scale = {largest, how.inverseTemperature, how.depth};
  const u32 thread = threadIdx.x;
  const u64 least = (u64)(LOWEST + 1) << 32, most = (u64)(ordered_of(largest) + 1) << 32;
  u32 turn = 0;
  // Distances that split a usual row well, in units of the temperature.
  const auto first_bounds = [&]() {
    if (thread < BOUNDS) {
      const double distance = thread < 5 ? 2.0 * thread + 2.0 : 4.0 * thread - 7.0;
      const float logit = (float)(scale.largest - distance / scale.inverseTemperature);
      s.bounds[thread] = thread == BOUNDS - 1 ? least : max(least, (u64)ordered_of(logit) << 32);
    }
    __syncthreads();
  };
  const auto even_bounds = [&](const Part& part) {
    if (thread < BOUNDS) {
      const u64 keys = part.high - part.low, below = (thread + 1) * ((keys + BOUNDS - 1) / BOUNDS);
      s.bounds[thread] = below >= keys ? part.low : part.high - below;
    }
    __syncthreads();
  };
  first_bounds();
  sum_tokens(s, row, false, scale, turn++);
  if (thread < SUMS) {
    s.firstMass[thread] = s.mass[thread];
    s.firstCount[thread] = s.count[thread];
  }
  __syncthreads();
  double mass = s.firstMass[BOUNDS - 1];
  u32 kept = s.firstCount[BOUNDS - 1];
  const double margin = MARGIN * mass;
  i32 drawn = -1;
#pragma unroll 1
  for (u32 cut = 0; cut < 3; cut++) {
    Target target = {0xffffffffu, 0.0, cut == 2};
    if (cut == 0) {
      if (how.topK >= kept) continue;
      target.count = how.topK;
      target.mass = INFINITE;
    } else if (cut == 1) {
      if (!(how.topP < 1.0)) continue;
      target.mass = how.topP * mass;
    } else {
      if (how.depth < INFINITE && s.firstCount[BOUNDS] <= kept) {
        kept = s.firstCount[BOUNDS];
        mass = s.firstMass[BOUNDS];
      }
      target.mass = uniform(how.seed, accepted) * mass;
    }
    first_bounds();
    Part part = {least, most, 0, 0, 0.0};
    part = narrow(s, s.firstMass, s.firstCount, part, 0, 0.0, target);
    while (part.count > LISTED) {
      __syncthreads();
      even_bounds(part);
      sum_tokens(s, row, false, scale, turn++);
      part = narrow(s, s.mass, s.count, part, 0, 0.0, target);
    }
    if (part.count == 0) return -1;
    if (thread == 0) s.listed = 0;
    __syncthreads();
#pragma unroll 2
    for (u32 id = first_token(); id < VOCAB; id += TOKEN_STRIDE) {
      float v[ROW_VECTOR];
      load(row + id, v);
#pragma unroll
      for (u32 k = 0; k < ROW_VECTOR; k++) {
        const u64 key = key_of(v[k], id + k);
        if (key >= part.low && key < part.high) s.list[atomicAdd(&s.listed, 1u)] = key;
      }
    }
    __syncthreads();
    const u32 base = part.before;
    const double massBase = part.massBefore;
    while (part.count > 1) {
      even_bounds(part);
      sum_tokens(s, row, true, scale, turn++);
      part = narrow(s, s.mass, s.count, part, base, massBase, target);
      if (part.count == 0) return -1;
      __syncthreads();
    }
    // The one key of the part, from the block that has it to all, in the place of two counts.
    u64 found = 0;
    for (u32 i = thread; i < s.listed; i += DRAWERS) {
      if (s.list[i] >= part.low && s.list[i] < part.high) found = s.list[i];
    }
    const u32 high = __reduce_max_sync(0xffffffffu, (u32)(found >> 32));
    const u32 low = __reduce_max_sync(0xffffffffu, (u32)found);
    if (high != 0 && thread % 32 < CLUSTER) {
      store_remote(&s.blockCount[turn % 2][0][0], thread % 32, high);
      store_remote(&s.blockCount[turn % 2][0][1], thread % 32, low);
    }
    sync_cluster();
    found = (u64)s.blockCount[turn % 2][0][0] << 32 | s.blockCount[turn % 2][0][1];
    turn++;
    const double reached = part.massBefore + weight_of(scale, logit_of(found));
    if (cut > 0 && !((part.before == 0 || part.massBefore + margin <= target.mass) && reached - margin >= target.mass)) return -1;
    if (cut == 2) {
      drawn = part.before + 1 <= kept ? (i32)id_of(found) : -1;
    } else if (part.before + 1 <= kept) {
      kept = part.before + 1;
      mass = reached;
    }
    __syncthreads();
  }
  return drawn;
}
