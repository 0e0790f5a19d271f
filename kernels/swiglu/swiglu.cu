// swiglu - y[t, i] = silu(gate[t, i]) * up[t, i], silu(g) = g / (1 + exp(-g)). See spec.ts.
//
// gateUp [T, 2, WIDTH] of IN (gate, then up) -> y [T, WIDTH] bf16, rounded to nearest even. Rows from count[0] on are left as
// they are.
//
// Grid: (slices of a row, T of the bucket); a thread makes 8 values (1 where WIDTH is no multiple of 8).
// Roofline: bytes = (4 + 2) * T * WIDTH from bf16, (8 + 2) * T * WIDTH from f32. The exponential is one instruction of the
// special function unit: its error, 2e-6 for gates within the range where it matters, is far below that of the bf16.
//
// Test: swiglu_cuda_test.ts. Time: ../cuda/layer_kernels_bench.ts; figures: docs/perf/2026-11-24-small-cuda-kernels.md.
//
// Defines: WIDTH, IN (float or bf16).
// @define WIDTH=14336 IN=bf16
// @define WIDTH=77 IN=float
#include "dependents.cuh"
#include "elements.cuh"

constexpr int VECTOR = WIDTH % 8 == 0 ? 8 : 1;

extern "C" __global__ __launch_bounds__(128) void swiglu(const IN* gateUp, const u32* count, bf16* y) {
  release_dependents();
  await_predecessors();
  const u32 t = blockIdx.y;
  const u32 i = (blockIdx.x * 128 + threadIdx.x) * VECTOR;
  if (i >= WIDTH) return;
  // All trips at once: there is room for rows beyond the count.
  const u32 total = *count;
  float gate[VECTOR], up[VECTOR];
  const IN* row = gateUp + (u64)t * 2 * WIDTH;
  load(row + i, gate);
  load(row + WIDTH + i, up);
  if (t >= total) return;
#pragma unroll
  for (int k = 0; k < VECTOR; k++) up[k] *= __fdividef(gate[k], 1.0f + __expf(-gate[k]));
  store(y + (u64)t * WIDTH + i, up);
}
