// rope_table - cosine and sine of the angles of a step's tokens, for all layers. See spec.ts.
//
// position [T] u32, inverse [PAIRS] f64 -> table [T, PAIRS] of (cos, sin)(position * inverse) * magnitude, f32. Rows from
// count[0] on are left as they are.
//
// It is made once a step (turn.cuh): 2 PAIRS values a token, shared by all heads and layers.
//
// Grid: (T of the bucket); one thread a pair.
// Roofline: bytes = 8 * T * PAIRS; about 40 f64 operations a pair.
//
// Test: rope_cuda_test.ts. Time: ../cuda/layer_kernels_bench.ts; figures: docs/perf/2026-11-24-small-cuda-kernels.md.
//
// Defines: PAIRS, THREADS (PAIRS rounded up to 32).
// @define PAIRS=64 THREADS=64
#include "dependents.cuh"
#include "elements.cuh"
#include "turn.cuh"

extern "C" __global__ __launch_bounds__(THREADS) void rope_table(
    const u32* positions, const u32* count, const double* inverse, float2* table, float magnitude) {
  release_dependents();
  await_predecessors();
  const u32 t = blockIdx.x;
  const u32 pair = threadIdx.x;
  if (t >= *count || pair >= PAIRS) return;
  table[(u64)t * PAIRS + pair] = turn_of(positions[t], inverse[pair], magnitude);
}
