// logits - what a sampler needs of each row of logits: lse = ln sum exp(x[v]) and the largest 64 with their ids. See spec.ts.
//
// x [R, VOCAB] of IN -> lse [R] f32, ids [R, 64] i32, top [R, 64] f32, descending, equal logits by lower id first; places beyond
// the vocabulary hold id -1 and -Infinity. Rows from count[0] on are left as they are. NaN and infinities as spec.ts says.
// Scratch: keys [R, CHUNKS, 64] u64, sums [R, CHUNKS] float2, arrived [R] u32, zero before the first launch and after each.
//
// Grid: (CHUNKS = VOCAB / 4096 rounded up, R of the bucket). A block reduces 4096 logits that it keeps in registers; the last one
// of a row to arrive joins the row's chunks in order. The cut does not depend on the number of rows: same bits in any batch.
//
// Selection (the same for logits and for the candidates of chunks): a key is the order-preserving image of the logit above
// the inverted id, so that all keys differ and the larger comes first. The maxima of 128 groups of keys are ranked by counting;
// at least 64 keys reach the 64th of them, and hardly more do. Those are gathered and ranked by counting. If more than 256 reach it
// (many equal logits, or a crowd in one group), the 64th largest key is found bit by bit first.
//
// Roofline: bytes = (4 or 2) * R * VOCAB; for one row the latency of a read, two selections and three trips to L2.
//
// Defines: VOCAB (at most 64 * 4096), IN (float or bf16).
// @define VOCAB=128256 IN=float
// @define VOCAB=50257 IN=bf16
// @define VOCAB=63 IN=float
#include "dependents.cuh"
#include "elements.cuh"
#include "top.cuh"

constexpr u32 CHUNKS = (VOCAB + CHUNK - 1) / CHUNK;
constexpr float LOG2_E = 1.4426950408889634f;
static_assert(CHUNKS <= 64, "a row's candidates are joined by one block");

// Threads that share the candidates of one chunk when they are joined; at least 64 pairs of them have candidates.
__device__ constexpr u32 sharing(u32 chunks) {
  u32 threads = 64;
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

extern "C" __global__ __launch_bounds__(SELECTORS, 1) void logits(
    const IN* x, const u32* count, u64* keys, float2* sums, u32* arrived, float* lse, i32* ids, float* top) {
  __shared__ Selection selection;
  __shared__ float partial[SELECTORS / 32];
  __shared__ bool last;
  release_dependents();
  await_predecessors();
  const u32 row = blockIdx.y, chunk = blockIdx.x, thread = threadIdx.x;
  if (row >= *count) return;
  const IN* from = x + (u64)row * VOCAB;
  constexpr u32 VECTOR = 16 / sizeof(IN);
  float v[KEPT];
  u64 key[KEPT];
  if constexpr (VOCAB % VECTOR == 0) {
#pragma unroll
    for (u32 i = 0; i < KEPT; i += VECTOR) {
      const u32 id = chunk * CHUNK + i * SELECTORS + thread * VECTOR;
      float some[VECTOR];
      if (id < VOCAB) load(from + id, some);
#pragma unroll
      for (u32 k = 0; k < VECTOR; k++) {
        v[i + k] = id < VOCAB ? some[k] : -INFINITE;
        key[i + k] = id < VOCAB ? key_of(some[k], id + k) : 0;
      }
    }
  } else {
#pragma unroll
    for (u32 i = 0; i < KEPT; i++) {
      const u32 id = chunk * CHUNK + i * SELECTORS + thread;
      float some[1];
      if (id < VOCAB) load(from + id, some);
      v[i] = id < VOCAB ? some[0] : -INFINITE;
      key[i] = id < VOCAB ? key_of(some[0], id) : 0;
    }
  }
  select(selection, key);
  const float largest = logit_of(selection.sorted[0]);
  const float base = base_of(largest);
  float sum = 0.0f;
#pragma unroll
  for (u32 i = 0; i < KEPT; i++) sum += exponential(v[i] - base);
#pragma unroll
  for (u32 step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (thread % 32 == 0) partial[thread / 32] = sum;
  __syncthreads();
  if (CHUNKS > 1) {
    const u64 at = (u64)row * CHUNKS + chunk;
    if (thread < TOP) keys[at * TOP + thread] = selection.sorted[thread];
    if (thread == 0) {
      float total = 0.0f;
#pragma unroll
      for (u32 warp = 0; warp < SELECTORS / 32; warp++) total += partial[warp];
      sums[at] = make_float2(largest, total);
    }
    __syncthreads();
    if (thread == 0) {
      __threadfence();
      last = atomicAdd(arrived + row, 1u) == CHUNKS - 1;
      __threadfence();
    }
    __syncthreads();
    if (!last) return;
    if (thread == 0) arrived[row] = 0;
    constexpr u32 SHARE = sharing(CHUNKS);
    const u64* list = keys + ((u64)row * CHUNKS + thread / SHARE) * TOP;
#pragma unroll
    for (u32 i = 0; i < KEPT; i++) {
      const u32 place = i * SHARE + thread % SHARE;
      key[i] = thread / SHARE < CHUNKS && place < TOP ? list[place] : 0;
    }
    select(selection, key);
  }
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
  if (thread >= 32) return;
  if (CHUNKS == 1) {
    float total = 0.0f;
#pragma unroll
    for (u32 warp = 0; warp < SELECTORS / 32; warp++) total += partial[warp];
    if (thread == 0) lse[row] = base + logf(total);
    return;
  }
  const float highest = base_of(logit_of(selection.sorted[0]));
  float total = 0.0f;
#pragma unroll
  for (u32 at = thread; at < 64; at += 32) {
    if (at >= CHUNKS) continue;
    const float2 part = sums[(u64)row * CHUNKS + at];
    total += part.y * exponential(part.x - highest);
  }
#pragma unroll
  for (u32 step = 16; step > 0; step /= 2) total += __shfl_xor_sync(0xffffffffu, total, step);
  if (thread == 0) lse[row] = highest + logf(total);
}
