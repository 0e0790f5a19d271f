// linear_pack: rearranges packed weights into the records that products of few tokens read, and linear_unpack: those records
// into rows of bf16.
//
// Records are as cuda_layout.ts describes them. A thread has a row, a chunk of 64 columns, and of both its blocks the four
// pairs of columns of lane % 4. Packing moves integers, scales and minimums; the records' bytes of rows and columns beyond the matrix are
// not written. Unpacking gives bf16(scale * integer + minimum), rounded once to f32 before, as weight_bf16 has it.
//
// HALF: 0 a matrix alone, strips of 16 rows; 1 and 2 the first and the second of two matrices that share strips.
//
// @arch sm_80 sm_90a sm_100
// @define WEIGHTS=1
// @define WEIGHTS=2
// @define WEIGHTS=3
#include "elements.cuh"

#define Q8_0 1
#define Q4_0 2
#define Q4_1 3
#ifndef WEIGHTS
#define WEIGHTS Q4_0
#endif

namespace {

constexpr u32 INTEGER_BYTES = WEIGHTS == Q8_0 ? 1024 : 512;
constexpr u32 RECORD_BYTES = INTEGER_BYTES + 64 + (WEIGHTS == Q4_1 ? 64 : 0);
constexpr u32 BLOCK_BYTES = WEIGHTS == Q8_0 ? 34 : WEIGHTS == Q4_0 ? 18 : 20;
constexpr u32 BLOCK_HEAD = WEIGHTS == Q4_1 ? 4 : 2;

// Where a row lies: its strip, and its place among the strip's 16 rows.
struct Place {
  u32 strip, row;
};

__device__ __forceinline__ Place placeOf(u32 row, u32 half) {
  if (half == 0) return {row / 16, row % 16};
  return {row / 8, row % 8 + (half == 2 ? 8u : 0u)};
}

// Integer `i` of a stored block; a nibble of Q4_0 as its low four bits in two's complement.
__device__ __forceinline__ u32 storedInteger(const u8* block, u32 i) {
  if (WEIGHTS == Q8_0) return block[BLOCK_HEAD + i];
  const u32 nibble = block[BLOCK_HEAD + i % 16] >> (i / 16 * 4) & 15;
  return WEIGHTS == Q4_0 ? nibble ^ 8 : nibble;
}

__device__ __forceinline__ float half_at(const u8* at) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(*(const u16*)at));
  return value;
}

}  // namespace

// from: rows of stored blocks, of which the first becomes row `first` of the matrix.
extern "C" __global__ void __launch_bounds__(256) linear_pack(const u8* from, u32 rows, u32 cols, u8* to, u32 first, u32 half) {
  const u32 chunks = (cols + 63) / 64, blocks = cols / 32;
  const u64 items = (u64)rows * chunks * 4;
  for (u64 item = (u64)blockIdx.x * 256 + threadIdx.x; item < items; item += (u64)gridDim.x * 256) {
    const u32 j = item % 4, chunk = item / 4 % chunks, row = (u32)(item / 4 / chunks);
    const Place place = placeOf(first + row, half);
    const u32 lower = place.row / 8, g = place.row % 8, lane = 4 * g + j;
    u8* record = to + ((u64)place.strip * chunks + chunk) * RECORD_BYTES;
    for (u32 b = 0; b < 2; b++) {
      if (chunk * 2 + b >= blocks) continue;
      const u8* stored = from + ((u64)row * blocks + chunk * 2 + b) * BLOCK_BYTES;
      if (WEIGHTS == Q8_0) {
        for (u32 part = 0; part < 2; part++) {
          u32 word = 0;
          // Bytes 0 and 2 are one pair of columns, 1 and 3 the next.
          for (u32 i = 0; i < 4; i++) word |= storedInteger(stored, 8 * (2 * part + i % 2) + 2 * j + i / 2) << 8 * i;
          ((u32*)record)[128 * b + 4 * lane + 2 * lower + part] = word;
        }
      } else {
        u32 word = 0;
        for (u32 i = 0; i < 8; i++) word |= storedInteger(stored, 8 * (i / 2) + 2 * j + i % 2) << (4 * (i / 2) + 16 * (i % 2));
        ((u32*)record)[4 * lane + 2 * b + lower] = word;
      }
      if (j != 0) continue;
      u16* scales = (u16*)(record + INTEGER_BYTES + 8 * g) + 2 * lower + b;
      scales[0] = stored[0] | stored[1] << 8;
      if (WEIGHTS == Q4_1) scales[32] = stored[2] | stored[3] << 8;
    }
  }
}

// to: bf16 [rows, cols]. A thread has pair i of all four lanes instead: eight columns in a row.
extern "C" __global__ void __launch_bounds__(256) linear_unpack(const u8* from, u32 rows, u32 cols, bf16* to, u32 half) {
  const u32 chunks = (cols + 63) / 64, blocks = cols / 32;
  const u64 items = (u64)rows * chunks * 4;
  for (u64 item = (u64)blockIdx.x * 256 + threadIdx.x; item < items; item += (u64)gridDim.x * 256) {
    const u32 i = item % 4, chunk = item / 4 % chunks, row = (u32)(item / 4 / chunks);
    const Place place = placeOf(row, half);
    const u32 lower = place.row / 8, g = place.row % 8;
    const u8* record = from + ((u64)place.strip * chunks + chunk) * RECORD_BYTES;
    for (u32 b = 0; b < 2; b++) {
      if (chunk * 2 + b >= blocks) continue;
      const u8* scales = record + INTEGER_BYTES + 8 * g + 4 * lower + 2 * b;
      const float scale = half_at(scales), minimum = WEIGHTS == Q4_1 ? half_at(scales + 64) : 0.f;
      float v[8];
#pragma unroll
      for (u32 j = 0; j < 4; j++) {
        const u32* words = (const u32*)record + 4 * (4 * g + j);
        if (WEIGHTS == Q8_0) {
          const u32 word = words[128 * b + 2 * lower + i / 2] >> 8 * (i % 2);
          v[2 * j] = scale * (float)(i32)(signed char)word;
          v[2 * j + 1] = scale * (float)(i32)(signed char)(word >> 16);
        } else {
          const u32 word = words[2 * b + lower] >> 4 * i;
#pragma unroll
          for (u32 e = 0; e < 2; e++) {
            const u32 nibble = word >> 16 * e & 15;
            v[2 * j + e] = WEIGHTS == Q4_0 ? scale * (float)((i32)(nibble ^ 8) - 8) : fmaf(scale, (float)nibble, minimum);
          }
        }
      }
      store(to + (u64)row * cols + chunk * 64 + b * 32 + i * 8, v);
    }
  }
}
