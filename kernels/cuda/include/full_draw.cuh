// The full path of a draw, and the definition of sampling (runtime/sampling/full_draw.ts): walks over all tokens of a row in
// total order.
//
// A block narrows an interval of keys (top.cuh: descending keys are the total order) to the token in which a walk ends: each
// pass sums counts and masses of the keys above eight bounds; once few keys are left they are gathered in shared memory.
// The first pass takes bounds by distance from the largest logit and is shared by the row's walks. Sums are in f64 and in one fixed
// order but for the gathered keys, whose order moves the last bits. Where a target lies within MARGIN of the mass of all tokens
// from either end of the token it falls into, the host's sums could say otherwise: nothing is decided then.
#pragma once
#include "elements.cuh"
#include "head_draw.cuh"
#include "random.cuh"
#include "sample_row.cuh"
#include "top.cuh"

#define DRAWERS 512
#define DRAWER_WARPS (DRAWERS / 32)
#define BOUNDS 8
#define LISTED 2048
// The host's exponentials are right to 1e-12, those here and all sums to far less.
#define MARGIN 4e-12
// Below every key of a logit above -Infinity, and above every key of -Infinity.
#define LEAST_KEY 0x0080000000000000ull

// Scratch of a block.
struct FullDraw {
  double masses[BOUNDS + 1][DRAWER_WARPS];
  u32 counts[BOUNDS + 1][DRAWER_WARPS];
  // Count and mass of the keys of the interval from each bound on, bounds descending.
  double mass[BOUNDS];
  u32 count[BOUNDS];
  double firstMass[BOUNDS];
  u32 firstCount[BOUNDS];
  // Tokens within the depth of the row.
  double within;
  u32 withinCount;
  u32 listed;
  u64 found;
  u64 list[LISTED];
};

// Keys in [low, high) and what comes before them.
struct Interval {
  u64 low;
  u64 high;
  u32 count;
  u32 before;
  double massBefore;
};

// A prefix of the total order: `known` when rounding cannot move its end.
struct Prefix {
  bool known;
  u32 count;
  double mass;
  u64 last;
};

struct Scale {
  double largest;
  double inverseTemperature;
  double depth;
};

__device__ __forceinline__ double weight_of(const Scale& scale, float logit) {
  return exp((logit - scale.largest) * scale.inverseTemperature);
}

// Calls `each(key, logit)` for the tokens of a row with a logit above -Infinity.
template <typename Each> __device__ __forceinline__ void each_token(const IN* row, Each each) {
  constexpr u32 VECTOR = 16 / sizeof(IN);
  if constexpr (VOCAB % VECTOR == 0) {
    for (u32 id = threadIdx.x * VECTOR; id < VOCAB; id += DRAWERS * VECTOR) {
      float v[VECTOR];
      load(row + id, v);
#pragma unroll
      for (u32 k = 0; k < VECTOR; k++) {
        if (v[k] > -INFINITE) each(key_of(v[k], id + k), v[k]);
      }
    }
  } else {
    for (u32 id = threadIdx.x; id < VOCAB; id += DRAWERS) {
      float v[1];
      load(row + id, v);
      if (v[0] > -INFINITE) each(key_of(v[0], id), v[0]);
    }
  }
}

// Sums of one thread over the keys from each bound on; the last place is for the tokens within the depth.
struct Sums {
  double mass[BOUNDS + 1];
  u32 count[BOUNDS + 1];

  __device__ __forceinline__ void add(u64 key, double weight, const u64 (&bounds)[BOUNDS]) {
#pragma unroll
    for (u32 j = 0; j < BOUNDS; j++) {
      if (key < bounds[j]) continue;
      mass[j] += weight;
      count[j]++;
    }
  }
};

// Joins the sums of all threads into `mass`, `count`, `within` and `withinCount`.
__device__ __forceinline__ void join(FullDraw& s, const Sums& sums) {
#pragma unroll
  for (u32 j = 0; j <= BOUNDS; j++) {
    const double mass = warp_sum(sums.mass[j]);
    const u32 count = __reduce_add_sync(FULL, sums.count[j]);
    if (threadIdx.x % 32 == 0) {
      s.masses[j][threadIdx.x / 32] = mass;
      s.counts[j][threadIdx.x / 32] = count;
    }
  }
  __syncthreads();
  if (threadIdx.x <= BOUNDS) {
    double mass = 0.0;
    u32 count = 0;
    for (u32 warp = 0; warp < DRAWER_WARPS; warp++) {
      mass += s.masses[threadIdx.x][warp];
      count += s.counts[threadIdx.x][warp];
    }
    if (threadIdx.x == BOUNDS) {
      s.within = mass;
      s.withinCount = count;
    } else {
      s.mass[threadIdx.x] = mass;
      s.count[threadIdx.x] = count;
    }
  }
  __syncthreads();
}

// Bounds at distances that hold about as much of a usual row each, in units of the temperature.
__device__ __forceinline__ void first_bounds(const Scale& scale, u64 (&bounds)[BOUNDS]) {
  const double distances[BOUNDS - 1] = {2.0, 4.0, 6.0, 8.0, 10.0, 13.0, 17.0};
#pragma unroll
  for (u32 j = 0; j < BOUNDS; j++) {
    bounds[j] = LEAST_KEY;
    if (j < BOUNDS - 1) {
      const float logit = (float)(scale.largest - distances[j] / scale.inverseTemperature);
      bounds[j] = max(bounds[j], key_of(logit, 0xffffffffu));
    }
  }
}

__device__ __forceinline__ void even_bounds(const Interval& in, u64 (&bounds)[BOUNDS]) {
  const u64 width = (in.high - in.low + BOUNDS - 1) / BOUNDS;
#pragma unroll
  for (u32 j = 0; j < BOUNDS; j++) {
    const u64 below = (j + 1) * width;
    bounds[j] = below >= in.high - in.low ? in.low : in.high - below;
  }
}

// The part between two bounds in which `ends(count, mass)` of the prefix through it first holds; the last one when it does nowhere.
template <typename Ends>
__device__ __forceinline__ Interval part_of(
    const Interval& in, const u64 (&bounds)[BOUNDS], const double* mass, const u32* count, Ends ends) {
  Interval part = {in.low, in.high, 0, 0, 0.0};
  u32 before = 0;
  double massBefore = 0.0;
  bool found = false;
#pragma unroll
  for (u32 j = 0; j < BOUNDS; j++) {
    if (found) continue;
    // Rounding can leave a walk without an end in the part that must hold it: then it ends with the last keys.
    const bool holds = ends(in.before + count[j], in.massBefore + mass[j]) || (j == BOUNDS - 1);
    if (count[j] > before) {
      part = {bounds[j], j == 0 ? in.high : bounds[j == 0 ? 0 : j - 1], count[j] - before, in.before + before,
              in.massBefore + massBefore};
      found = holds;
      before = count[j];
      massBefore = mass[j];
    }
  }
  return part;
}

// The shortest prefix at which `ends(count, mass)` holds, which must be monotone. `known` is set.
template <typename Ends>
__device__ __forceinline__ Prefix walk(FullDraw& s, const IN* row, const Scale& scale, u64 high, Ends ends) {
  u64 bounds[BOUNDS];
  first_bounds(scale, bounds);
  Interval in = part_of({LEAST_KEY, high, s.firstCount[BOUNDS - 1], 0, 0.0}, bounds, s.firstMass, s.firstCount, ends);
  while (in.count > LISTED) {
    even_bounds(in, bounds);
    Sums sums = {};
    each_token(row, [&](u64 key, float logit) {
      if (key >= in.low && key < in.high) sums.add(key, weight_of(scale, logit), bounds);
    });
    join(s, sums);
    in = part_of(in, bounds, s.mass, s.count, ends);
    __syncthreads();
  }
  if (threadIdx.x == 0) s.listed = 0;
  __syncthreads();
  each_token(row, [&](u64 key, float) {
    if (key < in.low || key >= in.high) return;
    const u32 at = atomicAdd(&s.listed, 1u);
    if (at < LISTED) s.list[at] = key;
  });
  __syncthreads();
  const u32 listed = s.listed;
  while (in.count > 1) {
    even_bounds(in, bounds);
    Sums sums = {};
    for (u32 i = threadIdx.x; i < listed; i += DRAWERS) {
      const u64 key = s.list[i];
      if (key >= in.low && key < in.high) sums.add(key, weight_of(scale, logit_of(key)), bounds);
    }
    join(s, sums);
    in = part_of(in, bounds, s.mass, s.count, ends);
    __syncthreads();
  }
  for (u32 i = threadIdx.x; i < listed; i += DRAWERS) {
    if (s.list[i] >= in.low && s.list[i] < in.high) s.found = s.list[i];
  }
  __syncthreads();
  const u64 last = s.found;
  __syncthreads();
  return {true, in.before + 1, in.massBefore + weight_of(scale, logit_of(last)), last};
}

// Whether a walk to `target` ends with this token whatever the order of the sums.
__device__ __forceinline__ bool certain(const Scale& scale, const Prefix& prefix, double target, double margin) {
  const double before = prefix.mass - weight_of(scale, logit_of(prefix.last));
  return (prefix.count == 1 || before + margin <= target) && prefix.mass - margin >= target;
}

// The token of a row that all its logits select; -1 when that hangs on rounding. All threads of the block take part. The first
// candidate is the first token of the row.
__device__ __forceinline__ i32 draw_from_all(FullDraw& s, const Row& how, const IN* row, float largest, u32 largestId) {
  const Scale scale = {largest, how.inverseTemperature, how.depth};
  const u64 high = key_of(largest, largestId) + 1;
  u64 bounds[BOUNDS];
  first_bounds(scale, bounds);
  Sums sums = {};
  each_token(row, [&](u64 key, float logit) {
    const double weight = weight_of(scale, logit);
    sums.add(key, weight, bounds);
    if ((scale.largest - logit) * scale.inverseTemperature <= scale.depth) {
      sums.mass[BOUNDS] += weight;
      sums.count[BOUNDS]++;
    }
  });
  join(s, sums);
  if (threadIdx.x < BOUNDS) {
    s.firstMass[threadIdx.x] = s.mass[threadIdx.x];
    s.firstCount[threadIdx.x] = s.count[threadIdx.x];
  }
  const double within = s.within;
  const u32 withinCount = s.withinCount;
  __syncthreads();
  const double all = s.firstMass[BOUNDS - 1];
  const double margin = MARGIN * all;
  double mass = all;
  u32 kept = s.firstCount[BOUNDS - 1];
  if (how.topK < kept) {
    const Prefix prefix = walk(s, row, scale, high, [&](u32 count, double) { return count >= how.topK; });
    kept = prefix.count;
    mass = prefix.mass;
  }
  if (how.topP < 1.0) {
    const double target = how.topP * mass;
    const Prefix prefix = walk(s, row, scale, high, [&](u32, double reached) { return reached >= target; });
    if (!certain(scale, prefix, target, margin)) return -1;
    if (prefix.count <= kept) {
      kept = prefix.count;
      mass = prefix.mass;
    }
  }
  if (how.depth < INFINITE && withinCount <= kept) {
    kept = withinCount;
    mass = within;
  }
  const double target = uniform(how.seed, how.accepted) * mass;
  const Prefix drawn = walk(s, row, scale, high, [&](u32, double reached) { return reached > target; });
  return certain(scale, drawn, target, margin) && drawn.count <= kept ? (i32)id_of(drawn.last) : -1;
}
