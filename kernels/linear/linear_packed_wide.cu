// linear_packed_wide: products of up to 64 tokens with packed weights, which become bf16 in registers.
//
// out[m, n] (+)= sum over k of bf16(w[n, k]) * x[m, k]; w [N, K] is Q8_0, Q4_0 or Q4_1 in the records of linear_pack, rounded once
// as weights of bf16 are; x [M, K] bf16, sums f32.
//
// Limit: the bytes of the weights over the memory's read rate; near 64 tokens the reads of x from L2 and, for nibbles, the
// instructions that expand them, seven a pair.
//
// A tile is WARPGROUPS * PIECES * 64 rows, a strip of 16 for each warp and piece; a warp copies its strips' records into a
// ring of its own, one thread of another warp chunks of 64 columns of x into a ring for all, by bulk copies. Weights come
// at once, inputs when the predecessor has ended (programmatic launch). A warpgroup's weights are the A operand, from
// registers: a lane's pairs of columns are its fragment's; inputs are the B operand. All tiles' chunks in a row are shared out
// evenly among the CTAs, so a CTA may begin and end within a tile.
//
// Order of summation: chunks ascending within a CTA's part of a tile, then the parts in order, added by the last CTA of a tile
// to arrive. It depends on N, K and the grid, not on M.
//
// Needs: K a multiple of 32; rows of x at multiples of 16 bytes; `counters` zero before and after.
//
// Test: linear_packed_wide_cuda_test.ts. Time: linear_cuda_bench.ts. Ladder: docs/perf/2026-11-24-packed-products.md.
//
// @arch sm_90a
// @define WEIGHTS=1 TOKENS=16
// @define WEIGHTS=2 TOKENS=16
// @define WEIGHTS=2 TOKENS=32
// @define WEIGHTS=2 TOKENS=64 PIECES=2
// @define WEIGHTS=3 TOKENS=64

#include "bulk_copy.cuh"
#include "dependents.cuh"

#define Q8_0 1
#define Q4_0 2
#define Q4_1 3
#ifndef WEIGHTS
#define WEIGHTS Q4_0
#endif
// Tokens there is room for: 8, 16, 32 or 64.
#ifndef TOKENS
#define TOKENS 16
#endif
#ifndef WARPGROUPS
#define WARPGROUPS 2
#endif
// Strips of a warp.
#ifndef PIECES
#define PIECES 1
#endif
#ifndef RESIDENT
#define RESIDENT 1
#endif

constexpr u32 INTEGER_BYTES = WEIGHTS == Q8_0 ? 1024 : 512;
constexpr u32 RECORD_BYTES = INTEGER_BYTES + 64 + (WEIGHTS == Q4_1 ? 64 : 0);
constexpr u32 WORDS = WEIGHTS == Q8_0 ? 2 : 1;
constexpr u32 SUMS = TOKENS / 2;
constexpr u32 WARPS = WARPGROUPS * 4;
constexpr u32 THREADS = WARPS * 32;
constexpr u32 TILE_STRIPS = WARPS * PIECES;
// Records that come together.
constexpr u32 GROUP = 2;
constexpr u32 STAGE_BYTES = PIECES * GROUP * RECORD_BYTES;
constexpr u32 INPUT_BYTES = TOKENS * 128;
constexpr u32 MAX_SLOTS = 16;

struct alignas(64) TensorMap {
  u64 opaque[16];
};

struct WideArgs {
  TensorMap x;
  const u8* weights;
  void* out;
  float* scratch;
  u32* counters;
  u32 tokens, rows, cols, outStride;
  u32 weightSlots, inputSlots;
  // 0 bf16, 1 f32, 2 added to f32, 3 bf16 silu(gate) * up.
  u32 output;
  // Outputs of a strip: 16 rows, or 8 of gate and 8 of up.
  __device__ __forceinline__ u32 stripOutputs() const { return output == 3 ? 8 : 16; }
};

// A box at (column, 0) of a matrix into shared memory.
__device__ __forceinline__ void copy_box(u32 to, const TensorMap& map, u32 column, u32 barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
      "l"(&map), "r"(column), "r"(0), "r"(barrier)
      : "memory");
}

// Shared-memory operand with the 128-byte swizzle; groups of 8 rows lie 1024 bytes apart.
__device__ __forceinline__ u64 operand(u32 address) {
  const u32 low = (address & 0x3ffff) >> 4 | 1u << 16, high = 1024 >> 4 | 1u << 30;
  u64 both;
  asm("mov.b64 %0, {%1, %2};" : "=l"(both) : "r"(low), "r"(high));
  return both;
}

#define ACC4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define ACC16(d, i) ACC4(d, i), ACC4(d, i + 4), ACC4(d, i + 8), ACC4(d, i + 12)
#define WGMMA(N, NAMES, A0, A1, A2, A3, B, ...)                                                                    \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" N "k16.f32.bf16.bf16 {" NAMES "}, {%" A0 ",%" A1 ",%" A2 ",%" A3 \
               "}, %" B ", 1, 1, 1, 0;"                                                                           \
               : __VA_ARGS__                                                                                      \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
#define NAMES8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define NAMES16 NAMES8 ",%8,%9,%10,%11,%12,%13,%14,%15"

// sums[64, TOKENS] += A[64, 16] B[TOKENS, 16]'.
__device__ __forceinline__ void wgmma(float (&d)[SUMS], const u32 (&a)[4], u64 b) {
#if TOKENS == 8
  WGMMA("8", "%0,%1,%2,%3", "4", "5", "6", "7", "8", ACC4(d, 0));
#elif TOKENS == 16
  WGMMA("16", NAMES8, "8", "9", "10", "11", "12", ACC4(d, 0), ACC4(d, 4));
#elif TOKENS == 32
  WGMMA("32", NAMES16, "16", "17", "18", "19", "20", ACC16(d, 0));
#else
  WGMMA("64", NAMES16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31", "32", "33", "34", "35", "36",
        ACC16(d, 0), ACC16(d, 16));
#endif
}

__device__ __forceinline__ void hold(float (&d)[SUMS]) {
#pragma unroll
  for (u32 i = 0; i < SUMS; i++) asm volatile("" : "+f"(d[i])::"memory");
}

// Position in a ring.
struct Ring {
  u32 slot = 0, parity = 0;
  __device__ __forceinline__ void advance(u32 slots) {
    if (++slot == slots) {
      slot = 0;
      parity ^= 1;
    }
  }
};

// A CTA's part of a tile: chunks from `first` to `end`.
struct Item {
  u32 tile, first, end;
};

// This CTA's part of all chunks of all tiles, tile by tile.
struct Share {
  u32 chunks, units, at, end;
  __device__ __forceinline__ Share(const WideArgs& args) {
    chunks = (args.cols + 63) / 64;
    units = (args.rows + args.stripOutputs() * TILE_STRIPS - 1) / (args.stripOutputs() * TILE_STRIPS) * chunks;
    at = begins(blockIdx.x);
    end = begins(blockIdx.x + 1);
  }
  __device__ __forceinline__ u32 begins(u32 block) const { return (u32)((u64)units * block / gridDim.x); }
  // The block that has unit `unit`.
  __device__ __forceinline__ u32 owner(u32 unit) const { return (u32)(((u64)unit * gridDim.x + gridDim.x - 1) / units); }
  __device__ __forceinline__ bool next(Item& item) {
    if (at >= end) return false;
    item.tile = at / chunks;
    item.first = at % chunks;
    item.end = min(chunks, item.first + end - at);
    at += item.end - item.first;
    return true;
  }
};

__device__ __forceinline__ void halves(u32 pair, float& low, float& high) {
  asm("{\n.reg .b16 l, h;\nmov.b32 {l, h}, %2;\ncvt.f32.f16 %0, l;\ncvt.f32.f16 %1, h;\n}" : "=f"(low), "=f"(high) : "r"(pair));
}

__device__ __forceinline__ u32 masked_xor(u32 word, u32 mask, u32 bits) {
  u32 result;
  asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(result) : "r"(word), "r"(mask), "r"(bits));
  return result;
}

// Pair `i` of a row of a block: bf16(scale * integer + base), of nibbles with 128 added to the integer.
__device__ __forceinline__ u32 pair_of(const uint4& words, u32 lower, u32 i, float scale, float base) {
#if WEIGHTS == Q8_0
  const u32 word = lower ? (i / 2 ? words.w : words.z) : (i / 2 ? words.y : words.x);
  float low, high;
  // Bytes 0 and 2 are pair 0 of the word, 1 and 3 pair 1.
  if (i % 2 == 0) {
    low = (float)(i32)(signed char)(word & 0xff);
    high = (float)((i32)(word << 8) >> 24);
  } else {
    low = (float)((i32)(word << 16) >> 24);
    high = (float)((i32)word >> 24);
  }
  return bf16_pair(scale * low, scale * high);
#else
  const u32 word = i32(lower) ? words.y : words.x;
  const u32 both = masked_xor(word >> 4 * i, 0x000f000fu, WEIGHTS == Q4_0 ? 0x43084308u : 0x43004300u);
  return bf16_pair(fmaf(scale, bf16_low(both), base), fmaf(scale, bf16_high(both), base));
#endif
}

// The A fragments of 16 rows x 64 columns, four steps of 16 columns.
__device__ __forceinline__ void expand(u32 (&a)[4][4], const u8* record, u32 lane) {
  float scale[2][2], base[2][2];
  const uint2 scales = *(const uint2*)(record + INTEGER_BYTES + lane / 4 * 8);
  halves(scales.x, scale[0][0], scale[1][0]);
  halves(scales.y, scale[0][1], scale[1][1]);
#if WEIGHTS == Q4_1
  const uint2 mins = *(const uint2*)(record + INTEGER_BYTES + 64 + lane / 4 * 8);
  halves(mins.x, base[0][0], base[1][0]);
  halves(mins.y, base[0][1], base[1][1]);
#endif
#if WEIGHTS != Q8_0
  const uint4 all = *(const uint4*)(record + lane * 16);
#endif
#pragma unroll
  for (u32 block = 0; block < 2; block++) {
#if WEIGHTS == Q8_0
    const uint4 words = *(const uint4*)(record + block * 512 + lane * 16);
#else
    const uint4 words = block ? make_uint4(all.z, all.w, 0, 0) : all;
#endif
#pragma unroll
    for (u32 lower = 0; lower < 2; lower++) {
      const float s = scale[block][lower];
      // Exact: 136 or 128 times a half has few bits; with a minimum it is rounded far below bf16.
      const float b = WEIGHTS == Q8_0 ? 0.f : WEIGHTS == Q4_0 ? -136.f * s : fmaf(-128.f, s, base[block][lower]);
#pragma unroll
      for (u32 i = 0; i < 4; i++) a[2 * block + i / 2][2 * (i % 2) + lower] = pair_of(words, lower, i, s, b);
    }
  }
}

__device__ __forceinline__ float silu(float v) { return v / (1.f + __expf(-v)); }

// Writes the sums of one strip.
__device__ __forceinline__ void write_out(const WideArgs& args, const float (&sums)[SUMS], u32 strip, u32 lane) {
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    const u32 row = strip * args.stripOutputs() + half * 8 + lane / 4;
    if (row >= args.rows || (half == 1 && args.output == 3)) continue;
#pragma unroll
    for (u32 i = 0; i < TOKENS / 8; i++) {
#pragma unroll
      for (u32 e = 0; e < 2; e++) {
        const u32 token = i * 8 + lane % 4 * 2 + e;
        if (token >= args.tokens) continue;
        const u64 to = (u64)token * args.outStride + row;
        float v = sums[i * 4 + half * 2 + e];
        if (args.output == 3) v = silu(v) * sums[i * 4 + 2 + e];
        if (args.output == 0 || args.output == 3) ((u16*)args.out)[to] = (u16)bf16_pair(v, 0.f);
        else if (args.output == 2) ((float*)args.out)[to] += v;
        else ((float*)args.out)[to] = v;
      }
    }
  }
}

__device__ __forceinline__ void sync_consumers() { asm volatile("bar.sync 1, %0;" ::"n"(THREADS) : "memory"); }

// Leaves this CTA's sums of a part of a tile in memory: a CTA has at most two such tiles, its first and its last. True for the last
// CTA of the tile to arrive: its sums are then those of all.
__device__ __forceinline__ bool add_parts(const WideArgs& args, const Share& share, const Item& item, float (&sums)[PIECES][SUMS],
                                          u32* shared) {
  constexpr u32 QUADS = PIECES * SUMS / 4;
  const u32 firstBlock = share.owner(item.tile * share.chunks), lastBlock = share.owner((item.tile + 1) * share.chunks - 1);
  auto place = [&](u32 block) {
    // The tile that a block ends in is its second one, unless it begins there too.
    const u32 second = share.begins(block) / share.chunks != item.tile;
    return (float4*)args.scratch + (u64)(block * 2 + second) * QUADS * THREADS + threadIdx.x;
  };
  float4* const own = place(blockIdx.x);
#pragma unroll
  for (u32 q = 0; q < QUADS; q++) {
    const float* v = &sums[q / (SUMS / 4)][q % (SUMS / 4) * 4];
    __stcg(own + q * THREADS, make_float4(v[0], v[1], v[2], v[3]));
  }
  __threadfence();
  sync_consumers();
  if (threadIdx.x == 0) *shared = atomicAdd(args.counters + item.tile, 1u);
  sync_consumers();
  if (*(volatile u32*)shared != lastBlock - firstBlock) return false;
  __threadfence();
  if (threadIdx.x == 0) args.counters[item.tile] = 0;
#pragma unroll
  for (u32 p = 0; p < PIECES; p++) {
#pragma unroll
    for (u32 i = 0; i < SUMS; i++) sums[p][i] = 0.f;
  }
#pragma unroll 1
  for (u32 block = firstBlock; block <= lastBlock; block++) {
    const float4* from = place(block);
#pragma unroll
    for (u32 q = 0; q < QUADS; q++) {
      const float4 part = __ldcg(from + q * THREADS);
      float* v = &sums[q / (SUMS / 4)][q % (SUMS / 4) * 4];
      v[0] += part.x, v[1] += part.y, v[2] += part.z, v[3] += part.w;
    }
  }
  return true;
}

extern "C" __global__ void __launch_bounds__(THREADS + 32, RESIDENT) linear_packed_wide(const __grid_constant__ WideArgs args) {
  extern __shared__ __align__(1024) u8 memory[];
  u64* const inputFull = (u64*)(memory + args.inputSlots * INPUT_BYTES + WARPS * args.weightSlots * STAGE_BYTES);
  u64* const inputEmpty = inputFull + MAX_SLOTS;
  u64* const weightFull = inputEmpty + MAX_SLOTS;
  u32* const arrived = (u32*)(weightFull + WARPS * MAX_SLOTS);
  const u32 warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  if (threadIdx.x < MAX_SLOTS) {
    barrier_init(shared_address(inputFull + threadIdx.x), 1);
    barrier_init(shared_address(inputEmpty + threadIdx.x), WARPS);
  }
  if (warp < WARPS && lane < MAX_SLOTS) barrier_init(shared_address(weightFull + warp * MAX_SLOTS + lane), 1);
  barriers_made();
  __syncthreads();
  release_dependents();
  Share share(args);
  const u32 inputs = shared_address(memory);
  if (warp == WARPS) {
    await_predecessors();
    if (lane != 0) return;
    Ring ring;
    for (Item item; share.next(item);) {
      for (u32 chunk = item.first; chunk < item.end; chunk++) {
        const u32 full = shared_address(inputFull + ring.slot);
        barrier_wait(shared_address(inputEmpty + ring.slot), ring.parity ^ 1);
        barrier_expect(full, INPUT_BYTES);
        copy_box(inputs + ring.slot * INPUT_BYTES, args.x, chunk * 64, full);
        ring.advance(args.inputSlots);
      }
    }
    return;
  }
  const u8* const stages = memory + args.inputSlots * INPUT_BYTES + warp * args.weightSlots * STAGE_BYTES;
  const u32 stagesAt = shared_address(stages), fullAt = shared_address(weightFull + warp * MAX_SLOTS);
  const u32 strips = (args.rows + args.stripOutputs() - 1) / args.stripOutputs();
  // What is asked for next: a stage has up to GROUP chunks of every piece.
  Share asking = share;
  Item asked = {0, 0, 0};
  u32 askSlot = 0;
  auto ask = [&]() {
    if (asked.first == asked.end && !asking.next(asked)) return;
    const u32 some = min(GROUP, asked.end - asked.first), bytes = some * RECORD_BYTES;
    if (lane == 0) {
      const u32 full = fullAt + 8 * askSlot, firstStrip = asked.tile * TILE_STRIPS + warp * PIECES;
      const u32 inside = firstStrip < strips ? min((u32)PIECES, strips - firstStrip) : 0;
      barrier_expect(full, inside * bytes);
      for (u32 piece = 0; piece < inside; piece++) {
        bulk_copy_once(stagesAt + askSlot * STAGE_BYTES + piece * GROUP * RECORD_BYTES,
                       args.weights + ((u64)(firstStrip + piece) * share.chunks + asked.first) * RECORD_BYTES, bytes, full);
      }
    }
    asked.first += some;
    if (++askSlot == args.weightSlots) askSlot = 0;
  };
  for (u32 slot = 0; slot < args.weightSlots; slot++) ask();
  await_predecessors();
  Ring weightRing, inputRing;
  for (Item item; share.next(item);) {
    float sums[PIECES][SUMS];
#pragma unroll
    for (u32 p = 0; p < PIECES; p++) {
#pragma unroll
      for (u32 i = 0; i < SUMS; i++) sums[p][i] = 0.f;
    }
    for (u32 first = item.first; first < item.end; first += GROUP) {
      barrier_wait(fullAt + 8 * weightRing.slot, weightRing.parity);
      const u8* stage = stages + weightRing.slot * STAGE_BYTES;
      const u32 some = min(GROUP, item.end - first);
#pragma unroll
      for (u32 u = 0; u < GROUP; u++) {
        if (u < some) {
          u32 a[PIECES][4][4];
#pragma unroll
          for (u32 p = 0; p < PIECES; p++) expand(a[p], stage + (p * GROUP + u) * RECORD_BYTES, lane);
          barrier_wait(shared_address(inputFull + inputRing.slot), inputRing.parity);
          const u64 b = operand(inputs + inputRing.slot * INPUT_BYTES);
#pragma unroll
          for (u32 p = 0; p < PIECES; p++) hold(sums[p]);
          asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
          for (u32 p = 0; p < PIECES; p++) {
#pragma unroll
            for (u32 k = 0; k < 4; k++) wgmma(sums[p], a[p][k], b + 2 * k);
          }
          asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
          asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
          for (u32 p = 0; p < PIECES; p++) hold(sums[p]);
          if (lane == 0) barrier_arrive(shared_address(inputEmpty + inputRing.slot));
          inputRing.advance(args.inputSlots);
        }
      }
      __syncwarp();
      ask();
      weightRing.advance(args.weightSlots);
    }
    const bool whole = item.end - item.first == share.chunks;
    if (!whole && !add_parts(args, share, item, sums, arrived)) continue;
#pragma unroll
    for (u32 p = 0; p < PIECES; p++) write_out(args, sums[p], item.tile * TILE_STRIPS + warp * PIECES + p, lane);
  }
}
