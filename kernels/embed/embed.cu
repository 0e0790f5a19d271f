// embed - rows of the token embedding: x[t, n] = table[id[t], n]. See spec.ts.
//
// id [T] i32, table [VOCAB, HIDDEN] bf16 -> x [T, HIDDEN] f32. Rows from count[0] on are left as they are. An id outside the
// table gives a row of NaN.
//
// Grid: (slices of a row, T of the bucket); a thread moves 8 values (1 where HIDDEN is no multiple of 8).
// Roofline: bytes = 6 * T * HIDDEN.
//
// Test: embed_cuda_test.ts. Time: ../cuda/layer_kernels_bench.ts; figures: docs/perf/2026-11-24-small-cuda-kernels.md.
//
// Defines: HIDDEN, VOCAB.
// @define HIDDEN=576 VOCAB=49152
// @define HIDDEN=45 VOCAB=7
#include "dependents.cuh"
#include "elements.cuh"

constexpr int VECTOR = HIDDEN % 8 == 0 ? 8 : 1;

extern "C" __global__ __launch_bounds__(128) void embed(const i32* ids, const u32* count, const bf16* table, float* x) {
  release_dependents();
  await_predecessors();
  const u32 t = blockIdx.y;
  const u32 n = (blockIdx.x * 128 + threadIdx.x) * VECTOR;
  // Both trips at once: there is room for ids beyond the count.
  const u32 total = *count, id = ids[t];
  if (t >= total || n >= HIDDEN) return;
  float v[VECTOR];
  if (id < VOCAB) {
    load(table + (u64)id * HIDDEN + n, v);
  } else {
#pragma unroll
    for (int i = 0; i < VECTOR; i++) v[i] = NOT_A_NUMBER;
  }
  store(x + (u64)t * HIDDEN + n, v);
}
