// The fast path of a draw: from the 64 candidates alone, where bounds on the mass of the rest prove that a look at the rest
// would not change the outcome. The bounds are those of runtime/sampling/head_draw.ts.
//
// One warp; lane l holds candidates 2 l and 2 l + 1.
#pragma once
#include "elements.cuh"
#include "random.cuh"
#include "sample_row.cuh"

#define FULL 0xffffffffu
// Relative error allowed to lse's sum of exponentials, and difference allowed between sums in different orders.
#define SUM_ERROR 1e-4
#define ROUNDING 1e-9

constexpr u32 CANDIDATES = VOCAB < TOP ? VOCAB : TOP;

__device__ __forceinline__ double warp_sum(double x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(FULL, x, step);
  return x;
}

// Candidates of a row: lane l holds numbers 2 l and 2 l + 1, in total order.
struct Head {
  float logit[2];
  // Running mass up to and including each; candidates from `kept` on do not count.
  double through[2];
  u32 kept;
  u32 length;
};

// Number of the first candidate whose running mass is above `target`; `kept` when none is.
__device__ __forceinline__ u32 first_above(const Head& head, double target) {
  const u32 at = 2 * (threadIdx.x % 32);
  return __popc(__ballot_sync(FULL, at < head.kept && head.through[0] <= target)) +
         __popc(__ballot_sync(FULL, at + 1 < head.kept && head.through[1] <= target));
}

__device__ __forceinline__ double through(const Head& head, u32 number) {
  const double even = __shfl_sync(FULL, head.through[0], number / 2 % 32);
  const double odd = __shfl_sync(FULL, head.through[1], number / 2 % 32);
  return number % 2 == 0 ? even : odd;
}

struct Bounds {
  double low;
  double high;
};

// Bounds on the mass of the tokens that are no candidates, as head_draw.ts derives them.
__device__ Bounds rest_of(const Head& head, double largest, double smallest, float lse, double a) {
  if (VOCAB == CANDIDATES || smallest == -INFINITE) return {0.0, 0.0};
  const double sum = exp(lse - largest);
  const u32 at = 2 * (threadIdx.x % 32);
  double listed = at < CANDIDATES ? exp(head.logit[0] - largest) : 0.0;
  if (at + 1 < CANDIDATES) listed += exp(head.logit[1] - largest);
  const double unlisted = sum - warp_sum(listed);
  const double low = fmax(0.0, unlisted - SUM_ERROR * sum);
  const double high = fmax(0.0, unlisted + SUM_ERROR * sum);
  const double depth = largest - smallest;
  const double count = VOCAB - CANDIDATES;
  const double scaled = exp(-depth * (a - 1.0));
  const double byCount = count * exp(-depth * a);
  if (a >= 1.0) return {a == 1.0 ? low : 0.0, fmin(high * scaled, byCount)};
  return {low * scaled, fmin(byCount, pow(count, 1.0 - a) * pow(high, a))};
}

// The candidate that u, uniform in [0, 1), selects; CANDIDATES when the head does not determine it.
__device__ u32 draw(const Row& row, Head& head, float lse) {
  const u32 at = 2 * (threadIdx.x % 32);
  const double largest = __shfl_sync(FULL, head.logit[0], 0);
  const double smallest = __shfl_sync(FULL, head.logit[(CANDIDATES - 1) % 2], (CANDIDATES - 1) / 2);
  head.kept = min(head.length, row.topK);
  double x[2], weight[2];
  u32 shallow = 0;
#pragma unroll
  for (int k = 0; k < 2; k++) {
    const bool counts = at + k < head.kept;
    x[k] = (largest - head.logit[k]) * row.inverseTemperature;
    weight[k] = counts ? exp(-x[k]) : 0.0;
    shallow += __popc(__ballot_sync(FULL, counts && !(x[k] > row.depth)));
  }
  double through_lane = weight[0] + weight[1];
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const double left = __shfl_up_sync(FULL, through_lane, step);
    if (threadIdx.x % 32 >= step) through_lane += left;
  }
  const double before = __shfl_up_sync(FULL, through_lane, 1);
  head.through[0] = (at == 0 ? 0.0 : before) + weight[0];
  head.through[1] = through_lane;
  const double mass = through(head, head.kept - 1);
  Bounds bounds = {mass, mass};
  if (row.topK > head.length) {
    const Bounds rest = rest_of(head, largest, smallest, lse, row.inverseTemperature);
    bounds = {mass + (row.topK == ALL_TOKENS ? rest.low : 0.0), mass + rest.high};
  }
  if (!(bounds.high < INFINITE)) return CANDIDATES;
  if (row.topP < 1.0) {
    const double least = row.topP * bounds.low * (1.0 - ROUNDING);
    const double most = row.topP * bounds.high * (1.0 + ROUNDING);
    const u32 low = first_above(head, least), high = first_above(head, most);
    const double lowMass = through(head, low), highMass = through(head, high);
    bounds = {low < head.kept ? lowMass : fmax(mass, least), high < head.kept ? highMass : bounds.high};
  }
  if (shallow < head.kept) {
    const double cut = through(head, shallow - 1);
    bounds = {fmin(bounds.low, cut), fmin(bounds.high, cut)};
  } else if (row.depth < INFINITE) {
    bounds.low = fmin(bounds.low, mass);
  }
  const double u = uniform(row.seed, row.accepted);
  const u32 least = first_above(head, u * bounds.low * (1.0 - ROUNDING));
  const u32 most = first_above(head, u * bounds.high * (1.0 + ROUNDING));
  return least == most && least < head.kept ? least : CANDIDATES;
}
