// rope_append - from the product with the query, key and value weights to rotated queries and to keys and values in the pool.
// See spec.ts and kv_pool.cuh.
//
// qkv [T, HEADS + 2 KV_HEADS, DIM] of IN (all query heads, key heads, value heads), bias [HEADS + 2 KV_HEADS, DIM] f32 or null,
// turns [T, PAIRS] (cos, sin) from rope_table -> q [T, HEADS, DIM] bf16, rotated; keys (rotated) and values rounded to nearest
// even and held within the finite numbers of the pool's type, in the pool at (tables[sequence[t], position[t] / 64], position[t] % 64), with zeros
// up to the padded dimension. `pool` is the address of the layer within block 0. Rows from count[0] on are left as they
// are. A negative sequence, a block id
// outside of 0 .. blocks - 1 or a position beyond the table writes nothing.
//
// Grid: (slices of a token, T of the bucket); a thread rotates 8 pairs or moves 8 values (1 where DIM or PAIRS is no multiple
// of 8).
// Roofline: bytes = 2 * (2 or 3) * T * (HEADS + 2 KV_HEADS) * DIM.
//
// Test: rope_cuda_test.ts. Time: ../cuda/layer_kernels_bench.ts; figures: docs/perf/2026-11-24-small-cuda-kernels.md.
//
// Defines: HEADS, KV_HEADS, DIM, PAIRS, HALVES (1: pairs (i, i + PAIRS); 0: pairs (2i, 2i + 1)), IN (float or bf16).
// @define HEADS=32 KV_HEADS=8 DIM=128 PAIRS=64 HALVES=1 IN=bf16
// @define HEADS=9 KV_HEADS=3 DIM=64 PAIRS=32 HALVES=0 IN=bf16
// @define HEADS=3 KV_HEADS=1 DIM=80 PAIRS=20 HALVES=1 IN=float
// @define HEADS=32 KV_HEADS=8 DIM=128 PAIRS=64 HALVES=1 IN=bf16 KV_FP8=1
// @define HEADS=3 KV_HEADS=1 DIM=80 PAIRS=20 HALVES=1 IN=float KV_FP8=1
#include "dependents.cuh"
#include "elements.cuh"
#include "kv_pool.cuh"

constexpr u32 VECTOR = DIM % 8 == 0 && PAIRS % 8 == 0 ? 8 : 1;
constexpr u32 ROTATED = PAIRS / VECTOR;
constexpr u32 HEAD_UNITS = ROTATED + (DIM - 2 * PAIRS) / VECTOR;
constexpr u32 VALUE_UNITS = DIM / VECTOR;
constexpr u32 PADDING_UNITS = (KV_PADDED_DIM(DIM) - DIM) / VECTOR;
constexpr u32 Q_UNITS = HEADS * HEAD_UNITS;
constexpr u32 K_UNITS = KV_HEADS * (HEAD_UNITS + PADDING_UNITS);
constexpr u32 V_UNITS = KV_HEADS * (VALUE_UNITS + PADDING_UNITS);

// VECTOR values of a head with the bias.
__device__ __forceinline__ void take(const IN* head, const float* bias, u32 dim, float (&v)[VECTOR]) {
  load(head + dim, v);
  if (bias == nullptr) return;
  float b[VECTOR];
  load(bias + dim, b);
#pragma unroll
  for (u32 i = 0; i < VECTOR; i++) v[i] += b[i];
}

// Unit `unit` of a query or key head: rotated where it has pairs. `put(dim, values)` takes VECTOR values at a time.
template <typename Put>
__device__ __forceinline__ void rotate(const IN* head, const float* bias, const float2* turns, u32 unit, Put put) {
  if (unit >= ROTATED) {
    float v[VECTOR];
    const u32 dim = 2 * PAIRS + (unit - ROTATED) * VECTOR;
    take(head, bias, dim, v);
    put(dim, v);
    return;
  }
  const u32 first = HALVES ? unit * VECTOR : 2 * unit * VECTOR;
  const u32 second = HALVES ? first + PAIRS : first + VECTOR;
  float v[2][VECTOR], turn[2 * VECTOR];
  take(head, bias, first, v[0]);
  take(head, bias, second, v[1]);
  load(reinterpret_cast<const float*>(turns + unit * VECTOR), turn);
#pragma unroll
  for (u32 i = 0; i < VECTOR; i++) {
    float& a = HALVES ? v[0][i] : v[2 * i / VECTOR][2 * i % VECTOR];
    float& b = HALVES ? v[1][i] : v[(2 * i + 1) / VECTOR][(2 * i + 1) % VECTOR];
    const float x = a, y = b, cosine = turn[2 * i], sine = turn[2 * i + 1];
    a = x * cosine - y * sine;
    b = y * cosine + x * sine;
  }
  put(first, v[0]);
  put(second, v[1]);
}

extern "C" __global__ __launch_bounds__(128) void rope_append(
    const IN* qkv, const float* bias, const float2* turns, const u32* positions, const i32* sequences, const i32* tables,
    const u32* count, bf16* q, u8* pool, u64 blockBytes, u32 blocks, u32 maxBlocks) {
  await_predecessors();
  // Not before: attention that starts early may then read all that came before this kernel.
  release_dependents();
  const u32 t = blockIdx.y;
  // All trips at once: there is room for rows beyond the count.
  const u32 total = *count, position = positions[t];
  const i32 sequence = sequences[t];
  u32 unit = blockIdx.x * 128 + threadIdx.x;
  const IN* row = qkv + (u64)t * (HEADS + 2 * KV_HEADS) * DIM;
  turns += (u64)t * PAIRS;
  if (unit < Q_UNITS) {
    const u32 head = unit / HEAD_UNITS;
    bf16* to = q + ((u64)t * HEADS + head) * DIM;
    rotate(row + head * DIM, bias == nullptr ? bias : bias + head * DIM, turns, unit % HEAD_UNITS,
           [&](u32 dim, const float (&v)[VECTOR]) {
             if (t < total) store(to + dim, v);
           });
    return;
  }
  unit -= Q_UNITS;
  if (unit >= K_UNITS + V_UNITS) return;
  const bool placed = t < total && sequence >= 0 && position / KV_BLOCK_TOKENS < maxBlocks;
  const u32 block = placed ? tables[(u64)sequence * maxBlocks + position / KV_BLOCK_TOKENS] : blocks;
  const u32 slot = position % KV_BLOCK_TOKENS;
  const bool isKey = unit < K_UNITS;
  const u32 head = isKey ? unit / (HEAD_UNITS + PADDING_UNITS) : (unit - K_UNITS) / (VALUE_UNITS + PADDING_UNITS);
  u8* part = pool + block * blockBytes + (2 * head + (isKey ? 0 : 1)) * KV_PART_BYTES(DIM);
  const auto put = [&](u32 dim, const float (&v)[VECTOR]) {
    if (block >= blocks) return;
    // Storing as e4m3 holds values within the finite ones by itself.
    float held[VECTOR];
#pragma unroll
    for (u32 i = 0; i < VECTOR; i++) held[i] = KV_FP8 ? v[i] : clamp_bf16(v[i]);
    store(reinterpret_cast<kv_element*>(part + kv_offset(slot, dim)), held);
  };
  const u32 source = HEADS + head + (isKey ? 0 : KV_HEADS);
  const IN* from = row + source * DIM;
  const float* offset = bias == nullptr ? bias : bias + source * DIM;
  const u32 at = isKey ? unit % (HEAD_UNITS + PADDING_UNITS) : (unit - K_UNITS) % (VALUE_UNITS + PADDING_UNITS);
  const u32 stored = isKey ? HEAD_UNITS : VALUE_UNITS;
  float v[VECTOR] = {};
  if (at >= stored) {
    put(DIM + (at - stored) * VECTOR, v);
  } else if (isKey) {
    rotate(from, offset, turns, at, put);
  } else {
    take(from, offset, at * VECTOR, v);
    put(at * VECTOR, v);
  }
}
