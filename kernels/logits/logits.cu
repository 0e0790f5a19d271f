// logits - what a sampler needs of each row of logits: lse = ln sum exp(x[v]) and the largest 64 with their ids. See spec.ts.
//
// x [R, VOCAB] of IN -> lse [R] f32, ids [R, 64] i32, top [R, 64] f32, descending, equal logits by lower id first; places beyond
// the vocabulary hold id -1 and -Infinity. Rows from count[0] on are left as they are. NaN and infinities as spec.ts says.
// Scratch: keys [R, CHUNKS, 192] u64, parts [R, CHUNKS] Part, arrived [R] u32, zero before the first launch and after each.
//
// Grid: (CHUNKS = VOCAB / 4096 rounded up, R of the bucket). A block takes the sum and the candidates of 4096 logits; the last one
// of a row to arrive joins the row's chunks in order. The cut does not depend on the number of rows: same bits in any batch.
// How candidates are chosen: top.cuh; a chunk leaves what it gathered, unsorted.
//
// Roofline: bytes = (4 or 2) * R * VOCAB; for one row the latency of a read, two selections and three trips to L2.
//
// Test: logits_cuda_test.ts. Time: ../cuda/layer_kernels_bench.ts; figures: docs/perf/2026-11-24-small-cuda-kernels.md.
//
// Defines: VOCAB (at most 64 * 4096), IN (float or bf16).
// @define VOCAB=128256 IN=float
// @define VOCAB=50257 IN=bf16
// @define VOCAB=63 IN=float
#include "dependents.cuh"
#include "elements.cuh"
#include "top.cuh"

#define KEPT 16
#define CHUNK (SELECTORS * KEPT)

constexpr u32 CHUNKS = (VOCAB + CHUNK - 1) / CHUNK;
constexpr u32 VECTOR = VOCAB % (16 / sizeof(IN)) == 0 ? 16 / sizeof(IN) : 1;
constexpr float LOG2_E = 1.4426950408889634f;
static_assert(CHUNKS <= 64, "a row's chunks are joined by one block");

// Largest logit of a chunk and sum of exponentials against it.
struct Part {
  float largest;
  float sum;
};

// Threads that read the candidates of one chunk when they are joined.
__device__ constexpr u32 sharing(u32 chunks) {
  u32 threads = SELECTORS;
  while (threads * chunks > SELECTORS) threads /= 2;
  return threads;
}

__device__ __forceinline__ float exponential(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * LOG2_E));
  return y;
}

// The base that exponentials are taken against: an empty or all-infinite set has the sum 0 against 0.
__device__ __forceinline__ float base_of(float largest) { return largest == -INFINITE ? 0.0f : largest; }

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (u32 step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

// Id of the i-th of a thread's logits in a chunk.
__device__ __forceinline__ u32 id_at(u32 chunk, u32 thread, u32 i) {
  return chunk * CHUNK + i / VECTOR * VECTOR * SELECTORS + thread * VECTOR + i % VECTOR;
}

extern "C" __global__ __launch_bounds__(SELECTORS, 1) void logits(
    const IN* x, const u32* count, u64* keys, Part* parts, u32* arrived, float* lse, i32* ids, float* top) {
  __shared__ Selection selection;
  __shared__ float partial[SELECTOR_WARPS];
  __shared__ bool last;
  release_dependents();
  await_predecessors();
  const u32 row = blockIdx.y, chunk = blockIdx.x, thread = threadIdx.x;
  // All trips at once: there is room for rows beyond the count.
  const u32 total = *count;
  const IN* from = x + (u64)row * VOCAB;
  float v[KEPT];
#pragma unroll
  for (u32 i = 0; i < KEPT; i++) v[i] = -INFINITE;
#pragma unroll
  for (u32 i = 0; i < KEPT; i += VECTOR) {
    const u32 id = id_at(chunk, thread, i);
    if (id < VOCAB) load(from + id, reinterpret_cast<float(&)[VECTOR]>(v[i]));
  }
  if (row >= total) return;
  // A maximum passes NaN by.
  float own = -INFINITE;
#pragma unroll
  for (u32 i = 0; i < KEPT; i++) own = fmaxf(own, v[i]);
  const u32 most = id_at(chunk, thread, 0) < VOCAB ? ordered_of(own) : 0;
  const u32 tokens = min((u32)CHUNK, VOCAB - chunk * CHUNK);
  u32 floor, largest;
  find_floor(selection, most, min((u32)SELECTOR_WARPS, tokens / (32 * VECTOR)), floor, largest);
  const float base = base_of(unordered(largest));
  float sum = 0.0f;
#pragma unroll
  for (u32 i = 0; i < KEPT; i++) sum += exponential(v[i] - base);
  sum = warp_sum(sum);
  if (thread % 32 == 0) partial[thread / 32] = sum;
  u32 candidates = gather<KEPT>(selection, most, floor, [&](u32 t, u32 i) {
    const u32 id = id_at(chunk, t, i);
    float one[1] = {0.0f};
    if (id < VOCAB) load(from + id, one);
    return id < VOCAB ? key_of(one[0], id) : (u64)0;
  });
  if (CHUNKS > 1) {
    if (thread < GATHERED) {
      keys[((u64)row * CHUNKS + chunk) * GATHERED + thread] = thread < candidates ? selection.gathered[thread] : 0;
    }
    if (thread == 0) {
      float all = 0.0f;
#pragma unroll
      for (u32 warp = 0; warp < SELECTOR_WARPS; warp++) all += partial[warp];
      *reinterpret_cast<float2*>(parts + row * CHUNKS + chunk) = make_float2(unordered(largest), all);
    }
    __syncthreads();
    if (thread == 0) {
      u32 before;
      asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(arrived + row) : "memory");
      last = before == CHUNKS - 1;
    }
    __syncthreads();
    if (!last) return;
    if (thread == 0) arrived[row] = 0;
    constexpr u32 SHARE = sharing(CHUNKS);
    constexpr u32 ITEMS = (GATHERED + SHARE - 1) / SHARE;
    const u64* list = keys + (u64)row * CHUNKS * GATHERED;
    const auto key_at = [&](u32 t, u32 i) {
      const u32 place = i * SHARE + t % SHARE;
      return t / SHARE < CHUNKS && place < GATHERED ? list[t / SHARE * GATHERED + place] : (u64)0;
    };
    u32 high = 0;
#pragma unroll
    for (u32 i = 0; i < ITEMS; i++) high = max(high, (u32)(key_at(thread, i) >> 32));
    u32 ignored;
    find_floor(selection, high, CHUNKS * SHARE / 32, floor, ignored);
    candidates = gather<ITEMS>(selection, high, floor, key_at);
  }
  rank_gathered(selection, candidates);
  if (thread < TOP) {
    const u64 chosen = selection.sorted[thread];
    const u32 id = id_of(chosen);
    float logit = logit_of(chosen);
    // The key knows neither the sign of a zero nor a NaN from -Infinity.
    if (chosen != 0 && (logit == 0.0f || logit == -INFINITE)) {
      float exact[1];
      load(from + id, exact);
      logit = exact[0];
    }
    ids[row * TOP + thread] = chosen == 0 ? -1 : (i32)id;
    top[row * TOP + thread] = chosen == 0 ? -INFINITE : logit;
  }
  // A warp that has nothing else to do.
  if (thread < SELECTORS - 32) return;
  const u32 lane = thread % 32;
  float part[2] = {-INFINITE, -INFINITE}, weight[2] = {0.0f, 0.0f};
  if (CHUNKS == 1) {
    part[0] = unordered(largest);
    weight[0] = lane < SELECTOR_WARPS ? partial[lane] : 0.0f;
  } else {
#pragma unroll
    for (u32 k = 0; k < 2; k++) {
      if (lane + 32 * k >= CHUNKS) continue;
      part[k] = parts[row * CHUNKS + lane + 32 * k].largest;
      weight[k] = parts[row * CHUNKS + lane + 32 * k].sum;
    }
  }
  const float highest = base_of(unordered(__reduce_max_sync(0xffffffffu, ordered_of(fmaxf(part[0], part[1])))));
  const float all = warp_sum(weight[0] * exponential(part[0] - highest) + weight[1] * exponential(part[1] - highest));
  if (lane == 0) lse[row] = highest + logf(all);
}
