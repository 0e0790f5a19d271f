// rmsnorm - y[t, n] = x[r, n] * w[n] / sqrt(mean over n of x[r, n]^2 + eps), r = rows[t] or t. See spec.ts.
//
// x [R, HIDDEN] f32, w [HIDDEN] f32 -> y [T, HIDDEN] bf16, rounded to nearest even. Rows from count[0] on are left as they are.
// With `rows` [T] i32 (not null) row t is made from row rows[t] of x: the rows whose logits are wanted; one outside of
// 0 .. R - 1 gives NaN. A row's bits depend on the row alone.
//
// Grid: (T of the bucket); a thread keeps 8 values (1 where HIDDEN is no multiple of 8) for each turn through the row in
// registers. Sums: a thread's squares in order, a butterfly over the warp, the warps in order.
// Roofline: bytes = 6 * T * HIDDEN; for few rows the latency of one read, one barrier and one write.
//
// Test: rmsnorm_cuda_test.ts. Time: ../cuda/layer_kernels_bench.ts; figures: docs/perf/2026-11-24-small-cuda-kernels.md.
//
// Defines: HIDDEN, THREADS (a multiple of 32).
// @define HIDDEN=4096 THREADS=512
// @define HIDDEN=1001 THREADS=512
#include "dependents.cuh"
#include "elements.cuh"

constexpr int VECTOR = HIDDEN % 8 == 0 ? 8 : 1;
constexpr int TURNS = (HIDDEN / VECTOR + THREADS - 1) / THREADS;
constexpr int WARPS = THREADS / 32;

extern "C" __global__ __launch_bounds__(THREADS) void rmsnorm(
    const float* x, const float* w, const i32* rows, const u32* count, bf16* y, u32 inputRows, float eps) {
  __shared__ float sums[WARPS];
  release_dependents();
  float weight[TURNS][VECTOR];
#pragma unroll
  for (int turn = 0; turn < TURNS; turn++) {
    const u32 n = (turn * THREADS + threadIdx.x) * VECTOR;
    if (n < HIDDEN) load(w + n, weight[turn]);
  }
  await_predecessors();
  const u32 t = blockIdx.x;
  // All trips at once: there is room for rows beyond the count, whatever they name.
  const u32 total = *count;
  const u32 row = rows == nullptr ? t : (u32)rows[t];
  const bool known = row < inputRows;
  float v[TURNS][VECTOR];
  float squares = 0.0f;
#pragma unroll
  for (int turn = 0; turn < TURNS; turn++) {
    const u32 n = (turn * THREADS + threadIdx.x) * VECTOR;
    if (n < HIDDEN && known) {
      load(x + (u64)row * HIDDEN + n, v[turn]);
#pragma unroll
      for (int i = 0; i < VECTOR; i++) squares = fmaf(v[turn][i], v[turn][i], squares);
    }
  }
  if (t >= total) return;
#pragma unroll
  for (int step = 16; step > 0; step /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, step);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = squares;
  __syncthreads();
  float all = 0.0f;
#pragma unroll
  for (int warp = 0; warp < WARPS; warp++) all += sums[warp];
  const float scale = 1.0f / sqrtf(all / HIDDEN + eps);
#pragma unroll
  for (int turn = 0; turn < TURNS; turn++) {
    const u32 n = (turn * THREADS + threadIdx.x) * VECTOR;
    if (n >= HIDDEN) continue;
    float out[VECTOR];
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
      out[i] = known ? v[turn][i] * scale * weight[turn][i] : NOT_A_NUMBER;
    }
    store(y + (u64)t * HIDDEN + n, out);
  }
}
