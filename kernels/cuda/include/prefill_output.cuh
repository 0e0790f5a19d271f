// Prefill attention: rows on their way out.
#pragma once
#include "prefill_items.cuh"

// Word i of thread q of four becomes word q of thread i.
DEVICE void transpose_quad(u32 (&w)[4]) {
  const bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const u32 got = __shfl_xor_sync(~0u, odd ? w[i] : w[i + 1], 1);
    w[i] = odd ? got : w[i];
    w[i + 1] = odd ? w[i + 1] : got;
  }
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const u32 got = __shfl_xor_sync(~0u, high ? w[i] : w[i + 2], 2);
    w[i] = high ? got : w[i];
    w[i + 2] = high ? w[i + 2] : got;
  }
}

// Four floats that other threads, or this one, have written in this launch.
DEVICE float4 load_float4(const float4* from) {
  float4 x;
  asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w) : "l"(from) : "memory");
  return x;
}

struct Output {
  bf16* out;
  float* partialO;
  float* partialLse;
};

// Row g + 8 i of the warp, times `factor`; `lse` gives the row's where it is a partial.
template <class Lse>
DEVICE void write_row(const Item& item, int row, int i, const float (&o)[OD / 2], float factor, const Output& output, Lse lse) {
  const int lane = threadIdx.x % 32;
  const bool real = row < item.tokens * GROUP;
  const u64 at = (u64)(item.outRow + row / GROUP) * HEADS + item.kvHead * GROUP + row % GROUP;
  if (item.partial) {
    if (!real) return;
#pragma unroll
    for (int j = 0; j < OD / 8; j++) {
      if (8 * j < HEAD_DIM) {
        float2 pair = {o[4 * j + 2 * i] * factor, o[4 * j + 2 * i + 1] * factor};
        *(float2*)(output.partialO + at * HEAD_DIM + 8 * j + 2 * (lane % 4)) = pair;
      }
    }
    if (lane % 4 == 0) output.partialLse[at] = lse();
    return;
  }
#pragma unroll
  for (int j = 0; j < OD / 8; j += 4) {
    u32 words[4];
#pragma unroll
    for (int c = 0; c < 4; c++) {
      words[c] = bf16_pair(o[4 * (j + c) + 2 * i] * factor, o[4 * (j + c) + 2 * i + 1] * factor);
    }
    transpose_quad(words);
    const int dim = 8 * (j + lane % 4);
    if (real && dim < HEAD_DIM) *(uint4*)(output.out + at * HEAD_DIM + dim) = {words[0], words[1], words[2], words[3]};
  }
}
