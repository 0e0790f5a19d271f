// kv_copy - one block of the pool as the bytes that members exchange, and back. See spec.ts.
//
// A block of the pool (kv_pool.cuh) is 64 tokens. Stored, it is 64 / TOKENS blocks of TOKENS tokens one after the other, each as
// kernels/wasm/src/kv.rs stores one: [layer][kv head] of K [TOKENS / 8][DIM][8 tokens] then V [WIDTH / 8][TOKENS][8 dimensions],
// WIDTH = DIM rounded up to 8, bf16; the 8 neighbours of a unit in the order 0 4 1 5 2 6 3 7. Values of a
// bf16 pool move bit for bit. Every e4m3 is a bf16; a pool of e4m3 takes the nearest one. Where one side has padding that the
// other has not, zeros are written.
//
//   kv_export   pool -> stored        kv_import   stored -> pool
//
// `block` is the address of the block's first layer in the pool, `layerBytes` lie between its layers, `stored` is the address of the
// bytes (16-byte aligned, device or pinned host memory).
// Grid: (2 KV_HEADS: keys and values of each head, LAYERS). A block of threads turns one part, as bf16, in shared memory.
// Roofline: bytes = 2 * 2 * 2 * 64 * DIM * KV_HEADS * LAYERS, or the bus where `stored` is the host's.
//
// Test: kv_copy_cuda_test.ts. Time: ../cuda/layer_kernels_bench.ts; figures: docs/perf/2026-11-24-small-cuda-kernels.md.
//
// Defines: LAYERS, KV_HEADS, DIM, TOKENS (8, 16, 32 or 64).
// @define LAYERS=32 KV_HEADS=8 DIM=128 TOKENS=16
// @define LAYERS=2 KV_HEADS=1 DIM=77 TOKENS=64
// @define LAYERS=2 KV_HEADS=1 DIM=77 TOKENS=64 KV_FP8=1
#include "dependents.cuh"
#include "elements.cuh"
#include "kv_pool.cuh"

#define THREADS 256

constexpr u32 WIDTH = (DIM + 7) / 8 * 8;
// Eights of neighbouring dimensions of a part, padding included.
constexpr u32 EIGHTS = KV_BLOCK_TOKENS * KV_PADDED_DIM(DIM) / 8;
constexpr u32 PART_BYTES = 16 * EIGHTS;
constexpr u32 KEY_UNITS = TOKENS / 8 * DIM;
constexpr u32 VALUE_UNITS = WIDTH / 8 * TOKENS;
constexpr u32 HEAD_UNITS = KEY_UNITS + VALUE_UNITS;
constexpr u32 BLOCKS = KV_BLOCK_TOKENS / TOKENS;

// The part of this block of threads in the pool.
__device__ __forceinline__ u8* part_of(u8* block, u64 layerBytes) {
  return block + blockIdx.y * layerBytes + (u64)blockIdx.x * KV_PART_BYTES(DIM);
}

// Which eight is the i-th: neighbouring threads stay within a row of a subtile.
__device__ __forceinline__ u32 slot_of(u32 i) { return i / 8 % KV_BLOCK_TOKENS; }
__device__ __forceinline__ u32 dim_of(u32 i) { return (i / (8 * KV_BLOCK_TOKENS) * 8 + i % 8) * 8; }

// The i-th eight of a part in the pool, as bf16.
__device__ __forceinline__ uint4 take(const u8* part, u32 i) {
  const u8* at = part + kv_offset(slot_of(i), dim_of(i));
#if KV_FP8
  float v[8];
  load(reinterpret_cast<const e4m3*>(at), v);
  return make_uint4(bf16_pair(v[0], v[1]), bf16_pair(v[2], v[3]), bf16_pair(v[4], v[5]), bf16_pair(v[6], v[7]));
#else
  return *reinterpret_cast<const uint4*>(at);
#endif
}

__device__ __forceinline__ void put(u8* part, u32 i, uint4 eight) {
  u8* at = part + kv_offset(slot_of(i), dim_of(i));
#if KV_FP8
  const u32 pairs[4] = {eight.x, eight.y, eight.z, eight.w};
  float v[8];
#pragma unroll
  for (u32 j = 0; j < 4; j++) v[2 * j] = bf16_low(pairs[j]), v[2 * j + 1] = bf16_high(pairs[j]);
  store(reinterpret_cast<e4m3*>(at), v);
#else
  *reinterpret_cast<uint4*>(at) = eight;
#endif
}

// Its units in stored block `index`.
__device__ __forceinline__ uint4* units_of(u8* stored, u32 index) {
  const u64 head = ((u64)index * LAYERS + blockIdx.y) * KV_HEADS + blockIdx.x / 2;
  return reinterpret_cast<uint4*>(stored) + head * HEAD_UNITS + (blockIdx.x % 2 == 0 ? 0 : KEY_UNITS);
}

__device__ __forceinline__ u16& element(u8* part, u32 slot, u32 dim) {
  return *reinterpret_cast<u16*>(part + bf16_offset(slot, dim));
}

__device__ __forceinline__ uint4& chunk(u8* part, u32 slot, u32 dim) {
  return *reinterpret_cast<uint4*>(part + bf16_offset(slot, dim));
}

// Eight elements in order as a unit, and a unit as eight elements in order.
__device__ __forceinline__ uint4 to_unit(uint4 v) {
  return make_uint4(__byte_perm(v.x, v.z, 0x5410), __byte_perm(v.x, v.z, 0x7632), __byte_perm(v.y, v.w, 0x5410),
                    __byte_perm(v.y, v.w, 0x7632));
}

__device__ __forceinline__ uint4 from_unit(uint4 u) {
  return make_uint4(__byte_perm(u.x, u.y, 0x5410), __byte_perm(u.z, u.w, 0x5410), __byte_perm(u.x, u.y, 0x7632),
                    __byte_perm(u.z, u.w, 0x7632));
}

// The first `keep` (at most 8) of eight elements, zeros after them.
__device__ __forceinline__ uint4 first_of(uint4 v, u32 keep) {
  const u32 words[4] = {v.x, v.y, v.z, v.w};
  u32 kept[4];
#pragma unroll
  for (u32 i = 0; i < 4; i++) kept[i] = keep >= 2 * i + 2 ? words[i] : keep == 2 * i + 1 ? words[i] & 0xffff : 0;
  return make_uint4(kept[0], kept[1], kept[2], kept[3]);
}

extern "C" __global__ __launch_bounds__(THREADS) void kv_export(u8* block, u8* stored, u64 layerBytes) {
  __shared__ alignas(16) u8 part[PART_BYTES];
  release_dependents();
  await_predecessors();
  const u8* from = part_of(block, layerBytes);
  for (u32 i = threadIdx.x; i < EIGHTS; i += THREADS) chunk(part, slot_of(i), dim_of(i)) = take(from, i);
  __syncthreads();
  if (blockIdx.x % 2 == 0) {
    for (u32 i = threadIdx.x; i < KEY_UNITS * BLOCKS; i += THREADS) {
      const u32 group = i / DIM, dim = i % DIM;
      u32 e[8];
#pragma unroll
      for (u32 k = 0; k < 8; k++) e[k] = element(part, group * 8 + k, dim);
      units_of(stored, i / KEY_UNITS)[i % KEY_UNITS] =
          make_uint4(e[0] | e[4] << 16, e[1] | e[5] << 16, e[2] | e[6] << 16, e[3] | e[7] << 16);
    }
    return;
  }
  for (u32 i = threadIdx.x; i < VALUE_UNITS * BLOCKS; i += THREADS) {
    const u32 unit = i % VALUE_UNITS, dim = unit / TOKENS * 8;
    const u32 slot = i / VALUE_UNITS * TOKENS + unit % TOKENS;
    units_of(stored, i / VALUE_UNITS)[unit] = to_unit(first_of(chunk(part, slot, dim), min(8, DIM - dim)));
  }
}

extern "C" __global__ __launch_bounds__(THREADS) void kv_import(u8* block, u8* stored, u64 layerBytes) {
  __shared__ alignas(16) u8 part[PART_BYTES];
  release_dependents();
  await_predecessors();
  if (DIM % 64 != 0) {
    for (u32 i = threadIdx.x; i < EIGHTS; i += THREADS) reinterpret_cast<uint4*>(part)[i] = make_uint4(0, 0, 0, 0);
    __syncthreads();
  }
  if (blockIdx.x % 2 == 0) {
    for (u32 i = threadIdx.x; i < KEY_UNITS * BLOCKS; i += THREADS) {
      const u32 group = i / DIM, dim = i % DIM;
      const uint4 unit = units_of(stored, i / KEY_UNITS)[i % KEY_UNITS];
      const u32 words[4] = {unit.x, unit.y, unit.z, unit.w};
#pragma unroll
      for (u32 k = 0; k < 8; k++) element(part, group * 8 + k, dim) = (u16)(words[k % 4] >> (k / 4 * 16));
    }
  } else {
    for (u32 i = threadIdx.x; i < VALUE_UNITS * BLOCKS; i += THREADS) {
      const u32 unit = i % VALUE_UNITS, dim = unit / TOKENS * 8;
      const u32 slot = i / VALUE_UNITS * TOKENS + unit % TOKENS;
      const uint4 values = from_unit(units_of(stored, i / VALUE_UNITS)[unit]);
      chunk(part, slot, dim) = first_of(values, min(8, DIM - dim));
    }
  }
  __syncthreads();
  u8* to = part_of(block, layerBytes);
  for (u32 i = threadIdx.x; i < EIGHTS; i += THREADS) put(to, i, chunk(part, slot_of(i), dim_of(i)));
}
