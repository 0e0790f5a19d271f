// linear_stream: products of up to 64 tokens at the speed of reading the weights: bulk copies into shared memory, wgmma.
//
// out[m, n] (+)= sum over k of w[n, k] * x[m, k]; w [N, K] bf16, row-major, x [M, K] bf16, sums f32.
//
// Limit: the bytes of the weights over the memory's read rate. x comes from L2, once for each tile of rows.
//
// A CTA takes tiles of rows blockIdx.x, + gridDim.x, ...; a tile is WARPGROUPS * PIECES pieces of `pieceRows` rows and all
// columns. One thread copies the pieces of a chunk of 64 * ATOMS columns into a ring, another the inputs of the chunk; weights
// come at once, inputs when the predecessor has ended (programmatic launch). A warpgroup multiplies its pieces by all tokens: the
// weights are the A operand, 64 rows with the 128-byte swizzle, the inputs the B operand. Rows beyond a piece are multiplied
// too, whatever they are, and not written.
//
// Order of summation: columns ascending, 16 at a time, whatever M, the grid and the pieces.
//
// Needs: slots a multiple of a tile's pieces, so that a slot always serves one warpgroup: one that came early to a slot that
// another has not seen full would take the barrier's phases for each other. K a multiple of 8; rows of x and w at multiples
// of 16 bytes.
//
// Test: linear_stream_cuda_test.ts. Time: linear_cuda_bench.ts. Ladder: docs/perf/2026-11-24-few-token-products.md.
//
// @arch sm_90a
// @define TOKENS=8 WARPGROUPS=1 PIECES=1 ATOMS=4 OUTPUT=2
// @define TOKENS=16 WARPGROUPS=1 PIECES=1 ATOMS=4
// @define TOKENS=32 WARPGROUPS=1 PIECES=1 ATOMS=2 OUTPUT=1
// @define TOKENS=32 WARPGROUPS=1 PIECES=2 ATOMS=4 OUTPUT=3
// @define TOKENS=64 WARPGROUPS=1 PIECES=2 ATOMS=2 OUTPUT=3
// @define TOKENS=64 WARPGROUPS=2 PIECES=1 ATOMS=4 OUTPUT=2
// @define TOKENS=64 WARPGROUPS=2 PIECES=2 ATOMS=1

#include "bulk_copy.cuh"
#include "dependents.cuh"

#ifndef TOKENS
#define TOKENS 16
#endif
#ifndef OUTPUT
#define OUTPUT 0
#endif
#ifndef WARPGROUPS
#define WARPGROUPS 2
#endif
#ifndef PIECES
#define PIECES 1
#endif
#ifndef ATOMS
#define ATOMS 1
#endif

constexpr u32 TILE_PIECES = WARPGROUPS * PIECES;
constexpr u32 CHUNK = 64 * ATOMS;
constexpr u32 SUMS = TOKENS / 2;
constexpr u32 THREADS = WARPGROUPS * 128;
constexpr u32 MAX_SLOTS = 32;
// Whether what is added to is read before the sums are there.
constexpr bool READS_EARLY = OUTPUT == 2 && PIECES * SUMS <= 16;
static_assert(OUTPUT != 3 || PIECES == 2, "a warpgroup has the gate and the up rows");

struct alignas(64) TensorMap {
  u64 opaque[16];
};

struct StreamArgs {
  TensorMap weights;
  TensorMap x;
  void* out;
  u32 tokens, rows, cols, outStride;
  u32 pieceRows, tiles;
  u32 weightSlots, inputSlots;
  // Pieces that are still to be asked for when the next kernel may begin.
  u32 releaseAhead;
};

// A box at (column, row) of a matrix into shared memory.
__device__ __forceinline__ void copy_box(u32 to, const TensorMap& map, u32 column, u32 row, u32 barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
      "l"(&map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}

// The same for what is read once.
__device__ __forceinline__ void copy_box_once(u32 to, const TensorMap& map, u32 column, u32 row, u32 barrier) {
  asm volatile(
      "{\n.reg .b64 policy;\ncreatepolicy.fractional.L2::evict_first.b64 policy, 1.0;\n"
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%2, %3}], [%4], policy;\n}" ::"r"(to),
      "l"(&map), "r"(column), "r"(row), "r"(barrier)
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
#define WGMMA(N, NAMES, A, B, ADD, ...)                                                                         \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" ADD ", 0;\nwgmma.mma_async.sync.aligned.m64n" N             \
               "k16.f32.bf16.bf16 {" NAMES "}, %" A ", %" B ", p, 1, 1, 0, 0;\n}"                               \
               : __VA_ARGS__                                                                                      \
               : "l"(a), "l"(b), "r"(add))
#define NAMES8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define NAMES16 NAMES8 ",%8,%9,%10,%11,%12,%13,%14,%15"

// sums[64, TOKENS] (+)= A[64, 16] B[TOKENS, 16]'.
__device__ __forceinline__ void wgmma(float (&d)[SUMS], u64 a, u64 b, u32 add) {
#if TOKENS == 8
  WGMMA("8", "%0,%1,%2,%3", "4", "5", "6", ACC4(d, 0));
#elif TOKENS == 16
  WGMMA("16", NAMES8, "8", "9", "10", ACC4(d, 0), ACC4(d, 4));
#elif TOKENS == 32
  WGMMA("32", NAMES16, "16", "17", "18", ACC16(d, 0));
#else
  WGMMA("64", NAMES16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31", "32", "33", "34",
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

// First row of a piece in the (stacked) matrix of weights; with OUTPUT 3 a warpgroup's second piece has the up rows.
__device__ __forceinline__ u32 weight_row(const StreamArgs& args, u32 tile, u32 piece) {
  if (OUTPUT == 3) return (tile * WARPGROUPS + piece / 2) * args.pieceRows + piece % 2 * args.rows;
  return (tile * TILE_PIECES + piece) * args.pieceRows;
}

__device__ __forceinline__ float silu(float v) { return v / (1.f + __expf(-v)); }

// Calls `take(index of a sum, its place in the output)` for what this thread has of a piece whose first row is `first`.
template <typename Take>
__device__ __forceinline__ void each_place(const StreamArgs& args, u32 first, const Take& take) {
  const u32 lane = threadIdx.x % 32;
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    const u32 within = threadIdx.x / 32 % 4 * 16 + half * 8 + lane / 4, row = first + within;
    if (within >= args.pieceRows || row >= args.rows) continue;
    u64 to = (u64)(lane % 4 * 2) * args.outStride + row;
#pragma unroll
    for (u32 i = 0; i < TOKENS / 8; i++) {
#pragma unroll
      for (u32 e = 0; e < 2; e++) {
        if (i * 8 + lane % 4 * 2 + e < args.tokens) take(i * 4 + half * 2 + e, to + e * args.outStride);
      }
      to += 8 * args.outStride;
    }
  }
}

// What lies at the places of a piece.
__device__ __forceinline__ void read_old(const StreamArgs& args, float (&old)[SUMS], u32 first) {
  each_place(args, first, [&](u32 i, u64 at) { old[i] = ((const float*)args.out)[at]; });
}

// Writes the sums of a piece; with OUTPUT 3 `other` are those of the up rows, with OUTPUT 2 what was there.
__device__ __forceinline__ void write_out(const StreamArgs& args, const float (&sums)[SUMS], const float (&other)[SUMS], u32 first) {
  each_place(args, first, [&](u32 i, u64 to) {
    float v = sums[i];
    if (OUTPUT == 2) v += other[i];
    if (OUTPUT == 3) v = silu(v) * other[i];
    if (OUTPUT == 0 || OUTPUT == 3) ((u16*)args.out)[to] = (u16)bf16_pair(v, 0.f);
    else ((float*)args.out)[to] = v;
  });
}

// Has the copy engine know a matrix before it is asked for a part of it.
__device__ __forceinline__ void prefetch_map(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

extern "C" __global__ void __launch_bounds__(THREADS + 64, 1) linear_stream(const __grid_constant__ StreamArgs args) {
  extern __shared__ __align__(1024) u8 memory[];
  // Groups of 8 rows lie at multiples of 1024 bytes.
  const u32 atomBytes = (args.pieceRows + 7) / 8 * 1024, slotBytes = atomBytes * ATOMS;
  const u32 pieceBytes = args.pieceRows * 128 * ATOMS;
  constexpr u32 INPUT_BYTES = TOKENS * 128 * ATOMS;
  const u32 shared = shared_address(memory);
  const u32 inputs = shared + args.weightSlots * slotBytes;
  // Rows beyond the last piece are read up to here.
  const u32 barriers = inputs + max(args.inputSlots * INPUT_BYTES, 64 * 128 - atomBytes);
  const u32 weightFull = barriers, weightEmpty = weightFull + 8 * MAX_SLOTS;
  const u32 inputFull = weightEmpty + 8 * MAX_SLOTS, inputEmpty = inputFull + 8 * MAX_SLOTS;
  const u32 chunks = (args.cols + CHUNK - 1) / CHUNK;
  const u32 warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  if (lane == 0 && warp == 4 * WARPGROUPS) prefetch_map(args.weights);
  if (lane == 0 && warp == 4 * WARPGROUPS + 1) prefetch_map(args.x);
  if (threadIdx.x < args.weightSlots) {
    barrier_init(weightFull + 8 * threadIdx.x, 1);
    barrier_init(weightEmpty + 8 * threadIdx.x, 4);
  }
  if (threadIdx.x < args.inputSlots) {
    barrier_init(inputFull + 8 * threadIdx.x, 1);
    barrier_init(inputEmpty + 8 * threadIdx.x, 4 * WARPGROUPS);
  }
  barriers_made();
  __syncthreads();
  if (warp == 4 * WARPGROUPS) {
    // Weights: nothing that a kernel writes.
    if (lane != 0) return;
    u32 left = ((args.tiles - 1 - blockIdx.x) / gridDim.x + 1) * chunks * TILE_PIECES;
    if (left <= args.releaseAhead) release_dependents();
    Ring ring;
    for (u32 tile = blockIdx.x; tile < args.tiles; tile += gridDim.x) {
      for (u32 chunk = 0; chunk < chunks; chunk++) {
#pragma unroll 1
        for (u32 piece = 0; piece < TILE_PIECES; piece++) {
          const u32 full = weightFull + 8 * ring.slot, to = shared + ring.slot * slotBytes;
          barrier_wait(weightEmpty + 8 * ring.slot, ring.parity ^ 1);
          barrier_expect(full, pieceBytes);
          const u32 row = weight_row(args, tile, piece);
#pragma unroll
          for (u32 atom = 0; atom < ATOMS; atom++) {
            copy_box_once(to + atom * atomBytes, args.weights, chunk * CHUNK + atom * 64, row, full);
          }
          ring.advance(args.weightSlots);
          if (--left == args.releaseAhead) release_dependents();
        }
      }
    }
    return;
  }
  await_predecessors();
  if (warp == 4 * WARPGROUPS + 1) {
    if (lane != 0) return;
    Ring ring;
    for (u32 tile = blockIdx.x; tile < args.tiles; tile += gridDim.x) {
      for (u32 chunk = 0; chunk < chunks; chunk++) {
        const u32 full = inputFull + 8 * ring.slot, to = inputs + ring.slot * INPUT_BYTES;
        barrier_wait(inputEmpty + 8 * ring.slot, ring.parity ^ 1);
        barrier_expect(full, INPUT_BYTES);
#pragma unroll
        for (u32 atom = 0; atom < ATOMS; atom++) {
          copy_box(to + atom * TOKENS * 128, args.x, chunk * CHUNK + atom * 64, 0, full);
        }
        ring.advance(args.inputSlots);
      }
    }
    return;
  }
  const u32 group = warp / 4;
  Ring weightRing, inputRing;
  for (u32 skipped = 0; skipped < group * PIECES; skipped++) weightRing.advance(args.weightSlots);
  for (u32 tile = blockIdx.x; tile < args.tiles; tile += gridDim.x) {
    const u32 firstRow = OUTPUT == 3 ? (tile * WARPGROUPS + group) * args.pieceRows
                                     : (tile * TILE_PIECES + group * PIECES) * args.pieceRows;
    float sums[PIECES][SUMS], old[PIECES][SUMS];
#pragma unroll
    for (u32 p = 0; p < PIECES; p++) {
      if (READS_EARLY) read_old(args, old[p], firstRow + p * args.pieceRows);
#pragma unroll
      for (u32 i = 0; i < SUMS; i++) sums[p][i] = 0.f;
    }
    for (u32 chunk = 0; chunk < chunks; chunk++) {
      barrier_wait(inputFull + 8 * inputRing.slot, inputRing.parity);
      const u32 input = inputs + inputRing.slot * INPUT_BYTES;
      Ring at = weightRing;
#pragma unroll
      for (u32 piece = 0; piece < PIECES; piece++) {
        barrier_wait(weightFull + 8 * at.slot, at.parity);
        const u32 weight = shared + at.slot * slotBytes;
        hold(sums[piece]);
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
        for (u32 atom = 0; atom < ATOMS; atom++) {
          const u64 a = operand(weight + atom * atomBytes), b = operand(input + atom * TOKENS * 128);
#pragma unroll
          for (u32 k = 0; k < 4; k++) wgmma(sums[piece], a + 2 * k, b + 2 * k, 1);
        }
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        at.advance(args.weightSlots);
      }
      asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
      for (u32 piece = 0; piece < PIECES; piece++) {
        hold(sums[piece]);
        if (lane == 0) barrier_arrive(weightEmpty + 8 * weightRing.slot);
        weightRing.advance(args.weightSlots);
      }
      if (lane == 0) barrier_arrive(inputEmpty + 8 * inputRing.slot);
      inputRing.advance(args.inputSlots);
      for (u32 skipped = 0; skipped + PIECES < TILE_PIECES; skipped++) weightRing.advance(args.weightSlots);
    }
    if constexpr (OUTPUT == 3) {
      write_out(args, sums[0], sums[1], firstRow);
    } else {
#pragma unroll
      for (u32 p = 0; p < PIECES; p++) {
        if (OUTPUT == 2 && !READS_EARLY) read_old(args, old[p], firstRow + p * args.pieceRows);
        write_out(args, sums[p], old[p], firstRow + p * args.pieceRows);
      }
    }
  }
}
